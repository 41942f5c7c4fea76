"""Training from a store is training beside the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from gradistill.models.probe import Probe
from gradistill.objectives import Pair, Term
from gradistill.objectives.attribution_map import AttributionMap
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.jacobian_matching import JacobianMatching
from gradistill.objectives.soft_label import SoftLabel
from gradistill.recipe import shipped_methods
from gradistill.signals import Logits
from gradistill.signals.teacher import OnlineTeacher
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import columns_for
from gradistill.store.reader import StoredTeacher
from gradistill.store.writer import build
from gradistill.training.step import signals_of
from slow import slow
from training.conftest import Kit, padded, rows, terms_of

METHODS = {
    **{method: terms_of(method) for method in shipped_methods() if method != "finetune"},
    "projected": [Term(SoftLabel()), Term(JacobianMatching(directions="projected"))],
    "sampled": [Term(SoftLabel()), Term(AttributionMap(view="sampled")),
                Term(GradientAlignment(view="sampled", sites=("embedding_output", "cls")), share=0.5)],
}  # fmt: skip


def pair_of(student: Any, teacher: Any) -> Pair:
    return Pair(Probe.find(student), Probe.find(teacher))


def stored(method: str, student: Any, teacher: Any, data: Dataset, folder: Path) -> StoredTeacher:
    online, pair = OnlineTeacher(teacher), pair_of(student, teacher)
    asked = (Logits(), *signals_of(METHODS[method], pair, "teacher"))
    columns = columns_for(asked, pair.teacher, "float32")
    made_for = {"for": method, "signals": [column.as_dict() for column in columns]}
    plan = BuildPlan(folder, data, columns, made_for, {}, tokens_at_once=24)
    build(plan, online, padded)
    return StoredTeacher.open(folder, plan.made_for, columns, data["index"])


def test_one_store_serves_all_views_and_the_sampled_one(kit: Kit) -> None:
    pair = pair_of(*kit.models())
    columns = [
        columns_for(signals_of([Term(AttributionMap(view=view))], pair, "teacher"), pair.teacher, "int8")
        for view in ("all", "sampled")
    ]
    assert columns[0] == columns[1]


QUICK = {"minilm", "gkd_cls", "adkd", "coalition_minilm", "projected", "sampled"}
"""Of the methods those that ask for every kind of signal between them: these are in ``make test``."""
CASES = [(method, 3) if method in QUICK else slow(method, 3) for method in METHODS] + [
    slow(method, labels) for method in ("kd", "adkd", "sampled", "coalition") for labels in (1, 2)
]
"""Every signal once, and of each kind of layout a regression and two labels."""
STEPS = 5
"""The first of a second epoch, whose batches are others, is the last."""


@pytest.mark.parametrize(("method", "labels"), CASES)
def test_a_float32_store_gives_the_losses_of_the_teacher(
    method: str, labels: int, kit: Kit, unchecked: None, tmp_path: Path
) -> None:
    features = rows(labels, count=16)
    data = Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in features])
    histories = []
    for source in ("online", "store"):
        student, teacher = kit.models(labels, frozen=method.startswith("gkd"))
        speaker: Any = teacher
        options: dict[str, Any] = {}
        if source == "store":
            speaker = stored(method, student, teacher, data, tmp_path / "store")
            options = {"teacher_facts": OnlineTeacher(teacher).probe}
        trainer = kit.trainer(
            METHODS[method],
            (student, speaker),
            data=data,
            options=options,
            max_steps=STEPS,
            learning_rate=1e-3,
        )
        trainer.train()
        histories.append([log for log in trainer.state.log_history if "loss" in log])
    assert len(histories[0]) == STEPS
    for online, found in zip(*histories, strict=True):
        terms = [key for key in online if key == "loss" or key.startswith("raw/")]
        assert len(terms) > 1
        # float32: the same numbers from batches that were padded otherwise. Signed sums of attributions, and angles
        # between layers that hardly differ, cancel: they keep fewer digits.
        slack = 1e-4 if method in ("e2kd", "ckd", "mgskd") else 1e-6
        assert {k: found[k] for k in terms} == pytest.approx(
            {k: online[k] for k in terms}, rel=slack, abs=slack
        )
