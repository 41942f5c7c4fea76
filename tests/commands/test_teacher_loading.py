"""Large teachers: in bfloat16, spread by accelerate; what they serve, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import build, collated
from gradistill.batch import Batch
from gradistill.cli.options import LoadingOptions
from gradistill.commands.audit import audit
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.distill import distill
from gradistill.commands.export_cost import CostedModel
from gradistill.commands.signal_stores import StoreChoice, StoreSettings
from gradistill.commands.store_signals import store_signals
from gradistill.errors import ModelError, RecipeError, StoreError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.student import narrow_student, student_from_teacher
from gradistill.models.teacher_loading import TeacherLoading, is_low_precision
from gradistill.recipe import load_recipe
from gradistill.signals import Logits, States
from gradistill.signals.teacher import OnlineTeacher
from small import NAMES, WORDS, logged, texts
from wordpiece import tokenizer

BF16 = TeacherLoading("bfloat16", {"": "cpu"})
HELD = StoreChoice(loading=BF16)
QUICK = ["training.epochs=1", "training.batch_size=8"]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for family in ("llama", "qwen2", "qwen3", "gemma3"):
        found[family] = tmp_path_factory.mktemp(family)
        model = build(family, labels=2, initializer_range=0.2, id2label=dict(enumerate(NAMES["two"] or ())))
        model.save_pretrained(found[family])
        tokenizer(WORDS).save_pretrained(found[family])
    return found


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_decoders_in_bfloat16_predict_nearly_the_same(family: str, decoders: dict[str, Path]) -> None:
    whole, _ = load_classifier(decoders[family])
    spread, _ = load_classifier(decoders[family], loading=TeacherLoading(device_map="auto"))
    narrow, _ = load_classifier(decoders[family], loading=BF16)
    assert [is_low_precision(model) for model in (whole, spread, narrow)] == [False, False, True]
    batch, wanted = Batch.of(collated()), [Logits(), States((1, 3))]
    own, other, coarse = (OnlineTeacher(model)(batch, wanted) for model in (whole, spread, narrow))
    for signal in wanted:
        torch.testing.assert_close(other[signal], own[signal], rtol=0, atol=0)
        assert coarse[signal].dtype == torch.float32
        # eight bits of mantissa: 0.4 % a rounding, some dozens of them
        torch.testing.assert_close(
            coarse[signal], own[signal], rtol=0.05, atol=0.05 * float(own[signal].std()) + 0.02
        )
    assert not torch.equal(coarse[Logits()], own[Logits()])
    for student in (student_from_teacher(narrow, 2), narrow_student(narrow, 2, 8)):
        assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_a_student_learns_from_a_store_of_bfloat16(
    decoders: dict[str, Path], small: Any, tmp_path: Path
) -> None:
    teacher, data = str(decoders["qwen3"]), small.choice("two")
    recipe = load_recipe("kd", changes=[*QUICK, "student.layers=2"])
    store_signals(teacher, data, tmp_path / "store", recipe, settings=StoreSettings(loading=BF16))
    printed: list[str] = []
    with logged(printed):
        found = distill(
            teacher,
            data,
            tmp_path / "student",
            recipe,
            signals=StoreChoice(str(tmp_path / "store"), loading=BF16),
        )
    assert found["loyalty"]["label"]["n"] == 10
    assert found["loyalty"]["saliency"] is None
    assert "saliency loyalty is left out: the teacher is in bfloat16" in printed
    assert {p.dtype for p in load_classifier(tmp_path / "student")[0].parameters()} == {torch.float32}
    with pytest.raises(StoreError, match="teacher"):  # one in float32 is another
        distill(teacher, data, tmp_path / "no", recipe, signals=StoreChoice(str(tmp_path / "store")))
    for method, title in (("adkd", "attributions"), ("gkd", "input gradients")):
        other = load_recipe(method, changes=[*QUICK, "student.layers=2"])
        with pytest.raises(RecipeError, match=f"{title} of the teacher, which computes in bfloat16"):
            distill(teacher, data, tmp_path / "no", other, signals=HELD)
    assert not (tmp_path / "no").exists()


def test_a_student_of_other_tokens_learns_its_outputs(
    small: Any, decoders: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "base"
    build("bert").bert.save_pretrained(other)
    tokenizer((*WORDS, "more")).save_pretrained(other)
    teacher, data = str(decoders["llama"]), small.choice("two")
    changes = [*QUICK, f"student.checkpoint={other}"]
    found = distill(teacher, data, tmp_path / "student", load_recipe("kd", changes=changes), signals=HELD)
    assert found["loyalty"]["label"]["n"] == 10
    assert found["loyalty"]["response"]["n"] > 0
    assert found["loyalty"]["saliency"] is None
    with pytest.raises(RecipeError, match="attribution_map: only the teacher's outputs are known"):
        distill(teacher, data, tmp_path / "no", load_recipe("adkd", changes=changes), signals=HELD)
    with pytest.raises(RecipeError, match="is given for a teacher that is no model"):
        distill([teacher, teacher], data, tmp_path / "no", load_recipe("kd", changes=changes), signals=HELD)


def test_an_audit_leaves_the_gradients_of_such_a_teacher_out(
    decoders: dict[str, Path], small: Any, tmp_path: Path
) -> None:
    rows, student = texts("two", 8), student_from_teacher(load_classifier(decoders["qwen2"])[0], 2)
    pair = (student, load_tokenizer(decoders["qwen2"]))
    few = {"faithfulness_rows": 0, "perturbed_rows": 0, "response_rows": 0, "shapley_rows": 0}
    choice = AuditChoice(loading=BF16, floor_rows=4, examples=4, **few)
    found = audit(str(decoders["qwen2"]), [pair], {"validation": rows}, tmp_path / "audit", choice)
    figures = found["students"][0]["figures"]["loyalty"]
    assert figures["label"]["n"] == 8
    assert figures["label"]["floor"] is not None
    assert "saliency" not in figures or figures["saliency"] is None
    assert any(
        "need gradients, and the teacher is a PyTorch model in bfloat16" in w for w in found["warnings"]
    )
    loaded = AuditModel.load(str(decoders["qwen2"]), "teacher", "teacher", loading=TeacherLoading("bfloat16"))
    costed = CostedModel.of("teacher", loaded, 16)
    assert costed is not None
    assert costed.size()["parameters"] > 0  # it has no gradients, and a size
    with pytest.raises(RecipeError, match="is given for a function"):
        audit(
            lambda texts: np.full((len(texts), 2), 0.5), [pair], {"validation": rows}, tmp_path / "no", choice
        )
    both = [str(decoders["qwen2"])] * 2
    with pytest.raises(RecipeError, match="is given for a set of several models"):
        audit(both, [pair], {"validation": rows}, tmp_path / "no", choice)


def test_other_values_and_adapters_are_refused() -> None:
    assert LoadingOptions(teacher_dtype="bfloat16", device_map="auto").loading() == TeacherLoading(
        "bfloat16", "auto"
    )
    with pytest.raises(RecipeError, match="--teacher-dtype"):
        LoadingOptions(teacher_dtype="int8").loading()
    with pytest.raises(RecipeError, match="--device-map"):
        LoadingOptions(device_map="gpu").loading()
    with pytest.raises(RecipeError, match="the device_map of a teacher is 'everywhere'"):
        TeacherLoading(device_map="everywhere")
    with pytest.raises(ModelError, match="there is no model folder"):
        load_classifier("./nothing", loading=BF16)
