"""The cells of a column, in pieces. Texts and numbers are Arrow arrays: lists take several times the memory."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice
from typing import Any, TypeGuard, TypeVar, overload

import numpy as np
import pyarrow as pa

PIECE_ROWS = 4096
"""Rows that a reader collects before it packs them."""
Row = TypeVar("Row")
Piece = pa.Array | Sequence[Any]


class Cells(Sequence[Any]):
    """An immutable sequence of Python values (``str``, ``int``, ``None`` …).

    Iteration unpacks a piece at a time. Slices are lists.

    Example: ``Cells([pa.array(["a", "b"]), [["a list"]]])[-1]`` gives ``["a list"]``.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = tuple(piece for piece in pieces if len(piece))
        self._starts = [0, *accumulate(map(len, self.pieces))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(_unpacked, self.pieces))

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[row] for row in range(len(self))[place]]
        row = range(len(self))[place]
        number = bisect_right(self._starts, row) - 1
        piece = self.pieces[number]
        cell = piece[row - self._starts[number]]
        return cell.as_py() if _is_arrow(piece) else cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:5]))
        return f"Cells({shown}{', …' if len(self) > 5 else ''})"

    def take(self, rows: Sequence[int]) -> Cells:
        """The cells of the ``rows``, which are in ascending order. For all rows nothing is copied."""
        if len(rows) == len(self):
            return self
        places = np.asarray(rows, np.int64)
        cuts = np.searchsorted(places, self._starts)
        parts = [places[a:b] - s for a, b, s in zip(cuts, cuts[1:], self._starts, strict=False)]
        return Cells(
            piece.take(pa.array(part)) if _is_arrow(piece) else [piece[k] for k in part]
            for piece, part in zip(self.pieces, parts, strict=True)
        )

    def arrow(self, kind: pa.DataType) -> pa.ChunkedArray:
        """The cells as an Arrow column of the type ``kind``. Pieces that already have this type are not copied."""
        pieces = [piece.cast(kind) if _is_arrow(piece) else pa.array(piece, kind) for piece in self.pieces]
        return pa.chunked_array(pieces, kind)


def as_cells(cells: Sequence[Any]) -> Cells:
    return cells if isinstance(cells, Cells) else Cells([cells])


def _unpacked(piece: Piece) -> Sequence[Any]:
    return piece.to_pylist() if _is_arrow(piece) else piece


def _is_arrow(piece: Piece) -> TypeGuard[pa.Array]:
    return isinstance(piece, pa.Array)


def numbers(found: array[int]) -> Cells:
    """Whole numbers as cells, such as the line numbers of a file."""
    return Cells([pa.array(np.asarray(found))])


def piecewise(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists of ``PIECE_ROWS``; the last list may be shorter."""
    left = iter(rows)
    return iter(lambda: [*islice(left, PIECE_ROWS)], [])


def packed(cells: Sequence[Any]) -> Piece:
    """An Arrow array if every cell is text or missing, else a list: an Arrow array has one type."""
    if all(cell is None or type(cell) is str for cell in cells):
        try:
            strings = pa.array(cells, pa.string())
        except UnicodeEncodeError:  # half of a surrogate pair, which a later check reports
            return list(cells)
        if _is_arrow(strings):  # texts of more than 2 GB become several arrays
            return strings
    return list(cells)


def joined(parts: Iterable[Mapping[str, Sequence[Any]]]) -> dict[str, Cells]:
    """The columns of several parts of a table, concatenated. A column that a part lacks is None there.

    All columns of a part have the same length. Columns that are not ``Cells`` are packed.
    """
    pieces: dict[str, list[Piece]] = {}
    rows = 0
    for part in parts:
        for name in part:
            pieces.setdefault(name, [pa.nulls(rows, pa.string())])
        count = len(next(iter(part.values()), ()))
        for name, known in pieces.items():
            cells = part.get(name)
            if cells is None:
                known.append(pa.nulls(count, pa.string()))
            else:
                known.extend(cells.pieces if isinstance(cells, Cells) else [packed(cells)])
        rows += count
    return {name: Cells(known) for name, known in pieces.items()}
