"""Inside the block nothing is trained or dropped; behind it everything is as it was, whatever happened."""

from __future__ import annotations

import pytest

from families import build
from gradistill.models.eval_mode import frozen_eval


def test_a_model_is_left_as_it_was() -> None:
    model = build("bert").train()
    model.bert.embeddings.eval().requires_grad_(False)

    def state() -> list[bool]:
        return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]

    def asked() -> None:
        with frozen_eval(model):
            assert not any(state())
            raise KeyError

    before = state()
    with pytest.raises(KeyError):
        asked()
    assert state() == before
