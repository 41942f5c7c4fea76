"""The values of one shard in memory, before they are written to a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gradistill.store.columns import item_bytes
from gradistill.store.reader import CONTENT, MappedShard, content_hash


class ShardBuffers:
    """Preallocated buffers for the columns of one shard, in the layout of the file. ``lengths``: tokens of each row.

    Buffers need far less memory than a Python object for each row. ``signals``: the columns in the manifest's form
    (``Column.as_dict``).
    """

    def __init__(self, signals: Sequence[Mapping[str, Any]], lengths: np.ndarray) -> None:
        self.lengths = lengths
        ones = np.ones_like(lengths)
        sizes = {s["name"]: item_bytes(s) * (lengths if s["per"] == "token" else ones) for s in signals}
        self.starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}
        self.numbers = {name: memoryview(bytearray(int(starts[-1]))) for name, starts in self.starts.items()}

    def put(self, place: int, row: Mapping[str, bytes]) -> None:
        for name, numbers in row.items():
            start, stop = self.starts[name][place : place + 2]
            self.numbers[name][start:stop] = numbers

    def copy(self, place: int, shard: MappedShard, rows: range) -> None:
        """Copy all columns of ``rows`` of another shard; the first of them is written at ``place``."""
        for name, content in shard.data.items():
            start, stop = shard.offsets[name][[rows.start, rows.stop]]
            first, last = self.starts[name][[place, place + len(rows)]]
            self.numbers[name][first:last] = content[start:stop].cast("B")

    def equals(self, shard: MappedShard, names: Iterable[str]) -> bool:
        """Whether a shard of the same rows has equal bytes in the columns ``names``."""
        spans = {name: shard.offsets[name][[0, -1]] for name in names}
        return all(shard.data[name][a:b].cast("B") == self.numbers[name] for name, (a, b) in spans.items())

    def file(self, indices: Sequence[int]) -> memoryview:
        numbers = {"index": np.asarray(indices, np.int64), "length": np.asarray(self.lengths, np.int64)}
        arrays = {
            **{name: pa.array(values, pa.int64()) for name, values in numbers.items()},
            **{name: self._column(name) for name in self.numbers},
        }
        content = {name: values.data for name, values in numbers.items()} | self.numbers
        noted = {CONTENT: content_hash(content)}
        batch = pa.record_batch(list(arrays.values()), names=list(arrays), metadata=noted)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return memoryview(sink.getvalue())

    def _column(self, name: str) -> pa.Array:
        buffers = [None, pa.py_buffer(self.starts[name]), pa.py_buffer(self.numbers[name])]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self.lengths), buffers)
