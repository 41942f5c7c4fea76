"""A model's predictions for copies of the raw text in which some words are replaced, for any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gradistill.batch import Batch, TextReader
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import Texts, count_words, substitute_words
from gradistill.errors import DataError
from gradistill.signals.copy_logits import CopyLogits
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class WordCopyLogits(CopyLogits):
    """``CopyLogits`` of the raw text: the same words are replaced for every model.

    With the replacement ``tokens`` each replaced word becomes a word of the data; with ``mask`` its tokens become the
    model's mask token. Each copy is tokenized as a text of its own. Draws depend on ``seed``, the set and the row's
    texts.
    """

    replaces_words: ClassVar[bool] = False
    cross_tokenizer: ClassVar[bool] = True

    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        reader, rows = _known_texts(forward.batch)
        copies = [
            copy
            for row in rows
            for number in sets
            for copy in self.copies_of(reader.texts[row], number, reader.pool)
        ]
        return forward.of_inputs(reader.inputs(copies)).unflatten(0, (len(rows), -1))

    def copies_of(self, texts: Texts, number: int, pool: Sequence[str]) -> list[Copy]:
        """The copies of one row in set ``number``; ``pool`` holds the replacement words."""
        content = crc32("\x1f".join(texts).encode("utf-8", "surrogatepass"))
        generator = np.random.default_rng([self.seed, number, content])
        words = count_words(texts)
        kept = self.coalitions(words, generator)
        drawn = generator.integers(len(pool), size=(self.copies, words))
        masked = generator.random(self.copies) < {"mask": 1.0, "either": 0.5, "tokens": 0.0}[self.replacement]
        others = [[pool[int(place)] for place in of_copy] for of_copy in drawn]
        return [
            Copy(texts, of_copy) if hidden else Copy(changed)
            for of_copy, hidden, changed in zip(
                kept, masked, substitute_words(texts, kept, others), strict=True
            )
        ]


def _known_texts(batch: Batch) -> tuple[TextReader, list[int]]:
    if batch.reader is None or batch.index is None:
        raise DataError(
            "The batch has no raw texts of its rows, so copies of them cannot be read.",
            expected="rows with a column index, and a collator with a reader",
            remedy="pass data_collator=ReadingCollator(tokenizer, reader=…) of gradistill.data.text_reader",
        )
    return batch.reader, batch.index.tolist()
