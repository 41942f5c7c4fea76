"""A predictor for texts longer than the model reads: it pools the predictions of windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.data.changed_copies import Copy
from gradistill.data.windows import Windows, pooled, spans_of_windows, window_copies


@dataclass(frozen=True)
class WindowedPredictor:
    """A ``Predictor`` for texts of any length, from one that cuts texts. Texts that fit have the same logits in both.

    A masked copy has the windows of its unmasked text, so that the same words are masked in them.

    Example: ``WindowedPredictor(ClassifierPredictor(model, tokenizer), Windows("mean", 32))``
    """

    inner: ClassifierPredictor | OnnxPredictor
    windows: Windows

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.inner.tokenizer

    @property
    def has_head(self) -> bool:
        return self.inner.has_head

    @property
    def can_mask(self) -> bool:
        return self.inner.can_mask

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.inner.multi_label

    @property
    def thresholds(self) -> np.ndarray | None:
        """The threshold of each label's probability, with several labels a row; None for ½."""
        return self.inner.thresholds

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``. The logits of several windows of a text are pooled by ``data.windows.pooled``."""
        texts = list(dict.fromkeys(text for copy in copies for text in copy.texts))
        spans = spans_of_windows(texts, self.tokenizer, self.inner.max_length, self.windows.overlap)
        known = dict(zip(texts, spans, strict=True))
        parts = [window_copies(copy, known[copy.texts[0]]) for copy in copies]
        quiet = replace(self.inner, on_progress=lambda done: None)
        logits = quiet.logits([window for part in parts for window in part], heads=heads)
        self.inner.on_progress(len(copies))
        return pooled(logits, [len(part) for part in parts], self.windows, multi_label=self.multi_label)
