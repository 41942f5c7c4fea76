"""DistillationTrainer with the labels alone is Trainer: more than a hundred behaviours, run on both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from transformers import Trainer

from gradistill import DistillationTrainer
from gradistill.errors import GradistillError
from slow import slow
from training.parity import LIST, Behaviour, alike, as_markdown, observed

QUICK = {
    "a last batch that is not full", "clipping of gradients (max_grad_norm)", "warmup and linear decay", "predict()",
    "gradient accumulation, as Trainer's one large batch", "bf16", "a regression",
    "evaluate() with compute_metrics and a prefix",
}  # fmt: skip
"""Equal behaviours that are in ``make test``, beside those that are refused or differ."""


@pytest.mark.parametrize(
    "behaviour",
    [b if b.name in QUICK or b.verdict != "equal" else slow(b) for b in LIST],
    ids=[b.name for b in LIST],
)
def test_a_behaviour_of_the_trainer(behaviour: Behaviour) -> None:
    ours = observed(behaviour, DistillationTrainer)
    if behaviour.verdict == "refused":
        assert isinstance(ours, GradistillError), ours
        assert behaviour.why in str(ours)
        assert ours.__notes__ == [f"left behind: [], {['out'] if behaviour.late else []}"]
        return
    theirs = observed(behaviour, Trainer)
    for found in (theirs, ours):
        if isinstance(found, Exception):
            raise found
    assert alike(theirs, ours, behaviour.tolerance) == (behaviour.verdict == "equal")


def test_the_list_is_long_and_has_no_name_twice() -> None:
    assert len(LIST) >= 60
    assert {b.name for b in LIST} >= QUICK
    assert [name for name, times in Counter(b.name for b in LIST).items() if times > 1] == []


def test_the_documentation_shows_the_list() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert as_markdown() in text, "PYTHONPATH=tests python tests/training/tables.py prints the table"
