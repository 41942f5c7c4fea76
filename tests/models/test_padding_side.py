"""A prediction does not depend on the texts beside it, on whichever side the tokenizer would pad."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradistill
from families import FAMILIES, build
from small import WORDS
from wordpiece import tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"funnel"}))  # which pools places, padded ones too
def test_a_batch_predicts_what_its_texts_do_alone(family: str, side: str) -> None:
    model, reader = build(family).eval(), tokenizer(WORDS)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    reader.padding_side, reader.model_max_length = side, 40
    words = [word for word in WORDS if not word.startswith("[")]
    texts = [" ".join((words * 2)[k : k + 8 + k]) for k in range(8)]
    predict = gradistill.load_predictor((model, reader))
    together = predict(texts)
    alone = np.concatenate([predict([text]) for text in texts])
    assert np.ptp(together, axis=0).max() > 1e-3
    assert np.abs(together - alone).max() < 1e-4
