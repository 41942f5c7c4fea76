"""The limits of a model's inputs: tokens of a text, token ids, token types.

They are found from one forward pass and not from class names: from the indices with which each embedding table is
looked up. A model without a table of positions (relative, rotary) has no limit of its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import pyarrow as pa
import pyarrow.compute
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedTokenizerBase

from gradistill.data.collator import erased_token_id
from gradistill.errors import ModelError
from gradistill.models.tracing import evaluating, probe_batch, unwrapped

_AT_ONCE = 1000

compute: Any = pyarrow.compute  # its functions are made when it is imported, which pyright does not see


@dataclass(frozen=True)
class Limits:
    """``positions`` tokens a text, special ones included; token ids below ``tokens``; token types below ``types``.

    None where the model sets no limit.
    """

    positions: int | None
    tokens: int | None
    types: int | None

    @classmethod
    def find(cls, model: nn.Module) -> Limits:
        """Find the limits from one forward pass of a sequence classifier.

        A table whose rows are looked up one after the other holds positions. A text has room from the row of the first
        token (2 in RoBERTa) to the end of the table. Of several tables the smallest counts.
        """
        inner = unwrapped(model)
        ids = probe_batch(inner)["input_ids"][:1].flip(1)  # falling, so that they are not taken for positions
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "token_type_ids" in signature(inner.forward).parameters:
            inputs["token_type_ids"] = torch.zeros_like(ids)
        with evaluating(inner), torch.no_grad(), _Lookups() as lookups:
            inner(**inputs)
        positions, tokens, types = list[int](), list[int](), list[int]()
        for indices, rows in lookups.seen:
            if indices.ndim not in (1, 2) or indices.shape[-1] < ids.shape[1]:
                continue
            row = indices.reshape(-1, indices.shape[-1])[
                0, : ids.shape[1]
            ].cpu()  # Longformer pads to its window
            if torch.equal(row, ids[0].cpu()):
                tokens.append(rows)
            elif bool((row.diff() == 1).all()):
                positions.append(rows - int(row[0]))
            elif not bool(row.any()):
                types.append(rows)
        return cls(*(min(found, default=None) for found in (positions, tokens, types)))

    def check(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, owner: str = "model") -> None:
        """Raise ModelError for encoded rows that the model cannot read; see ``check_readable``."""
        lengths = self.positions and _first_above(rows, "input_ids", self.positions, of_lengths=True)
        if lengths:
            raise ModelError(
                f"The {owner} reads at most {self.positions} tokens of a text, and row {lengths[0]} has {lengths[1]}.",
                expected=f"texts of at most {self.positions} tokens, special ones included",
                remedy=f"set max_length to {self.positions} or less",
            )
        if self.tokens is not None:
            _check_token_ids(rows, tokenizer, self.tokens, owner)
        types = self.types and _first_above(rows, "token_type_ids", self.types - 1)
        if types:
            raise ModelError(
                f"Row {types[0]} holds the token type {types[1]}, and the {owner} has {self.types} (type_vocab_size).",
                expected="the tokenizer that the model was trained with",
                remedy="save that tokenizer in the folder of the model, or leave token_type_ids out of its "
                "model_input_names",
            )


class _Lookups(TorchFunctionMode):
    """Records the indices of every table lookup inside the block, and the number of rows of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.embedding:
            given = {**dict(zip(("input", "weight"), args, strict=False)), **(kwargs or {})}
            self.seen.append((given["input"].detach(), given["weight"].shape[0]))
        return func(*args, **(kwargs or {}))


def check_readable(
    model: nn.Module, rows: Dataset, tokenizer: PreTrainedTokenizerBase, *, owner: str = "model"
) -> None:
    """Check encoded rows against the limits of a model, before any work.

    ``owner`` is the name of the model in messages, such as "teacher". Raises ModelError for rows that are longer than
    the model's positions, for token ids without a row in its embedding matrix (the ids of padding and mask included),
    and for token types that it does not have.
    """
    Limits.find(model).check(rows, tokenizer, owner=owner)


def _check_token_ids(rows: Dataset, tokenizer: PreTrainedTokenizerBase, known: int, owner: str) -> None:
    text = _first_above(rows, "input_ids", known - 1)
    found = [(f"Row {text[0]} holds", text[1])] if text else []
    for use, token_id in (("pads", tokenizer.pad_token_id), ("masks", erased_token_id(tokenizer))):
        if isinstance(token_id, int) and token_id >= known:
            found.append((f"The tokenizer {use} with", token_id))
    for what, token_id in found:
        raise ModelError(
            f"{what} the token id {token_id} ({tokenizer.convert_ids_to_tokens(token_id)!r}), and the {owner}'s "
            f"embedding matrix has {known} rows (ids 0 to {known - 1}).",
            expected="the tokenizer that the model was trained with",
            remedy="save that tokenizer in the folder of the model; for added tokens call "
            "model.resize_token_embeddings(len(tokenizer)) and train the model with them",
        )


def _first_above(
    rows: Dataset, column: str, most: int, *, of_lengths: bool = False
) -> tuple[int, int] | None:
    """The number of the first row with a value above ``most`` in a column of lists, and that value.

    With ``of_lengths`` it is the first list longer than ``most``, and its length.
    """
    for start, lists in _blocks(rows, column):
        flat = compute.list_value_length(lists) if of_lengths else compute.list_flatten(lists)
        if len(flat) and compute.max(flat).as_py() > most:
            sizes = [len(values) if of_lengths else max(values, default=0) for values in lists.to_pylist()]
            place = next(k for k, size in enumerate(sizes) if size > most)
            row = rows[start + place]
            return int(row.get("index", start + place)), sizes[place]
    return None


def _blocks(rows: Dataset, column: str) -> Iterator[tuple[int, pa.ChunkedArray]]:
    if column in rows.column_names:
        table = rows.with_format("arrow")
        for start in range(0, len(rows), _AT_ONCE):
            yield start, table[start : start + _AT_ONCE][column]
