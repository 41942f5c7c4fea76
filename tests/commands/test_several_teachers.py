"""Several teachers as one: the average of what each predicts, their labels paired by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byte_level import byte_level
from families import build
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.cli.options import teachers_of
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.distill import distill
from gradistill.commands.mean_source import mean_source
from gradistill.commands.prepared_raw_text_run import prepared_raw_text_run
from gradistill.commands.teacher_prompt import prompted
from gradistill.commands.text_predictor import load_predictor
from gradistill.data import DataChoice, align_labels, read_splits
from gradistill.data.changed_copies import Copy
from gradistill.data.label_matching import Outputs
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.errors import GradistillError, RecipeError
from gradistill.models.loading import load_tokenizer
from gradistill.recipe import load_recipe
from small import texts, write_table


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with another tokenizer, whose outputs are in another order than the small teacher's."""
    folder = tmp_path_factory.mktemp("decoder")
    model = build("qwen3", vocab_size=300, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    model.config.id2label = {0: "yes", 1: "no", 2: "maybe"}
    model.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


def softly(pairs: list[Any]) -> Any:
    return [[0.5, 0.25, 0.25] if "very" in pair[0] else [0.25, 0.25, 0.5] for pair in pairs]


softly.labels = ("no", "maybe", "yes")  # pyright: ignore[reportFunctionMemberAccess]


def rows_of(choice: DataChoice) -> Any:
    return lambda names: align_labels(
        read_splits(choice, outputs=Outputs(names, labelled=True)), dict(enumerate(names))
    )


def test_the_mean_is_that_of_each_ones_own_predictions(small: Any, decoder: Path) -> None:
    """Against ``gradistill predict`` of each model, whose columns carry the names of the labels."""
    models: list[Any] = [str(small.teachers["three"]), str(decoder), softly]
    source, aligned = mean_source(models, small.choice("three"), rows_of(small.choice("three")))
    rows = aligned.rows["validation"]
    pairs = list(zip(rows["text"][:], rows["other"][:], strict=True))
    every = []
    for model in models[:2]:
        predictor: Any = load_predictor(model)
        columns = dict(zip(predictor.labels, predictor(pairs).T, strict=True))
        every.append([columns[label] for label in aligned.task.labels or ()])
    own = dict(zip(softly.labels, np.array(softly(pairs)).T, strict=True))  # pyright: ignore[reportFunctionMemberAccess]
    every.append([own[label] for label in aligned.task.labels or ()])
    expected = sum(np.array(one) for one in every).T / 3
    found = source.predictions(rows, aligned.task, "validation").logits
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, rtol=1e-6)


def test_rows_may_lack_classes_of_several_teachers(small: Any, decoder: Path, tmp_path: Path) -> None:
    """As they may for one teacher."""
    for split in ("train", "validation"):
        some = [row for row in texts("three", 12) if row["label"] != "maybe"]
        write_table(tmp_path / f"{split}.csv", some)
    data = replace(small.choice("three"), source=str(tmp_path))
    recipe = load_recipe("kd", changes=[f"student.checkpoint={small.base}"])
    run = prepared_raw_text_run([str(small.teachers["three"]), str(decoder)], data, recipe)
    assert run.task.labels == ("maybe", "no", "yes")
    assert run.models.student.model.config.num_labels == 3
    assert set(run.splits.rows["train"]["label"][:]) == {1, 2}


class Fixed:
    """A predictor that returns what it was made with."""

    has_head = False

    def __init__(self, logits: list[list[float]], can_mask: bool = True) -> None:
        self.found, self.can_mask = np.array(logits), can_mask

    def logits(self, copies: Any, *, heads: Any = ()) -> Any:
        return self.found[None]


def test_probabilities_of_several_labels_and_scores_are_averaged_one_by_one() -> None:
    one, other = Fixed([[0.0, 2.0]]), Fixed([[-1.0, 1.0]], can_mask=False)
    copies = [Copy(("a",))]
    several = MeanPredictor((one, other), "multi_label").logits(copies)[0, 0]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    mean = np.array([(sigmoid(0.0) + sigmoid(-1.0)) / 2, (sigmoid(2.0) + sigmoid(1.0)) / 2])
    np.testing.assert_allclose(sigmoid(several), mean)
    scores = MeanPredictor((Fixed([[1.0]]), Fixed([[4.0]])), "scores")
    assert scores.logits(copies).tolist() == [[[2.5]]]
    assert scores.can_mask
    assert not MeanPredictor((one, other)).can_mask
    with pytest.raises(GradistillError, match="no head to randomise"):
        scores.logits(copies, heads=[0])


def test_a_student_learns_from_several_teachers(small: Any, decoder: Path, tmp_path: Path) -> None:
    quick = [
        "training.epochs=1",
        "training.batch_size=8",
        f"student.checkpoint={small.base}",
        "student.layers=1",
    ]
    teachers: list[Any] = [str(small.teachers["three"]), str(decoder)]
    data, recipe = small.choice("three"), load_recipe("coalition", changes=quick)
    metrics = distill(teachers, data, tmp_path / "run", recipe)
    assert metrics["teacher_source"]["kind"] == "the mean of several teachers"
    assert metrics["teacher_source"]["teachers"] == teachers
    assert metrics["loyalty"]["response"]["n"] > 0
    assert metrics["loyalty"]["saliency"] is None
    for wrong, message in (
        ([teachers[0]], "the list of teachers holds 1"),
        ([teachers[0], teachers[0] + "/"], "is named twice"),
        ([teachers[0], str(small.teachers["two"])], r"(?s)labels of the teacher .*three and of .*two differ"),
        ([teachers[0], str(small.teachers["score"])], r"(?s)score differ.*score: a score"),
        ([teachers[0], str(tmp_path / "none")], "there is no model folder"),
    ):
        with pytest.raises(GradistillError, match=message):
            distill(wrong, data, tmp_path / "no", recipe)
    for method in ("adkd", "gkd"):
        with pytest.raises(
            RecipeError, match=r"(?s)teacher's outputs are known.*objectives among coalition_matching"
        ):
            distill(
                teachers,
                data,
                tmp_path / "no",
                load_recipe(method, changes=[*quick, "student.embeddings=own"]),
            )
    with pytest.raises(RecipeError, match="the teacher is the mean of several teachers"):
        distill(teachers, data, tmp_path / "no", load_recipe("kd", changes=[*quick, "training.augment=2"]))


def test_one_teacher_a_label(small: Any, tmp_path: Path) -> None:
    """Against ``gradistill predict`` of each: a label's probability is its own teacher's of yes."""
    folders, template = {}, "Is it so: {text}"
    for seed, (label, names) in enumerate({"odd": ("yes", "no"), "dull": ("other", "Dull")}.items()):
        model = build("bert", labels=2, seed=seed)
        model.config.id2label = dict(enumerate(names))
        model.save_pretrained(tmp_path / label)
        load_tokenizer(small.base).save_pretrained(tmp_path / label)
        folders[label] = str(tmp_path / label)
    every = [["odd"], [], ["dull", "odd"], ["dull"]]
    rows = [{"text": f"the film was fine {k}", "labels": every[k % 4]} for k in range(8)]
    data = DataChoice({"train": rows, "validation": rows}, kind="multi_label")
    recipe = load_recipe("kd", changes=[f"student.checkpoint={small.base}"]).with_template(template)
    run = prepared_raw_text_run(prompted(folders, template), data, recipe)
    assert run.task.labels == ("odd", "dull")
    assert run.models.student.model.config.problem_type == "multi_label_classification"
    found = run.source.predictions(run.splits.rows["validation"], run.task, "validation")
    texts = [row["text"] for row in rows]
    for k, (label, yes) in enumerate({"odd": "yes", "dull": "Dull"}.items()):
        predictor: Any = load_predictor(PromptedTeacher(folders[label], template))
        expected = predictor(texts)[:, predictor.labels.index(yes)]
        np.testing.assert_allclose(1 / (1 + np.exp(-found.logits[:, k])), expected, rtol=1e-5)
    with pytest.raises(GradistillError, match=r"(?s)predicts maybe, no, yes, .* the label 'odd'"):
        AuditModel.load({"odd": str(small.teachers["three"]), "dull": folders["dull"]}, "teacher", "both")
    with pytest.raises(GradistillError, match="for the label odd alone"):
        AuditModel.load({"odd": folders["odd"]}, "teacher", "one")
    assert teachers_of(["odd=a", "dull = b"]) == {"odd": "a", "dull": "b"}
    for wrong in (["odd=a", "b"], ["odd=a", "odd=b"], ["=a", "odd=b"]):
        with pytest.raises(RecipeError, match="not every one has a label of its own"):
            teachers_of(wrong)
