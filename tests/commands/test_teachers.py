"""Teachers that read the texts by themselves: a file of answers, a function, a model with another tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tr
from safetensors.torch import load_file

from byte_level import byte_level
from families import build
from gradistill.batch import Batch
from gradistill.cli.options import TeacherOptions
from gradistill.commands import training_run
from gradistill.commands.distill import distill
from gradistill.commands.function_source import function_identity
from gradistill.commands.prepared_run import prepared_run
from gradistill.commands.signal_stores import StoreChoice, build_missing_shards
from gradistill.commands.teacher_prompt import prompted, settled_prompt
from gradistill.commands.write_texts import write_texts
from gradistill.data import Collator
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.data.teacher_answers import TeacherAnswers, row_id
from gradistill.errors import DataError, GradistillError, RecipeError
from gradistill.recipe import Recipe, load_recipe
from gradistill.signals import Logits
from gradistill.store.reader import StoredTeacher
from small import logged, texts


def recipe_for(method: str, student: Any, *changes: str) -> Recipe:
    quick = [
        "training.epochs=1",
        "training.batch_size=8",
        f"student.checkpoint={student}",
        "student.layers=1",
    ]
    return load_recipe(method, changes=[*quick, *changes])


def weights(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / "model.safetensors") for folder in folders]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_file_of_the_live_teachers_logits_gives_the_same_student(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["three"]), small.choice("three")
    recipe = recipe_for("kd", teacher)
    run = prepared_run(teacher, data, recipe)
    rows = run.encode().rows["train"]
    plan = run.plan([Logits()], rows, "float32", tmp_path / "store")
    online = run.models.online
    assert online is not None
    build_missing_shards(plan, online, run.tokenizer)
    stored = StoredTeacher.open(plan.folder, plan.made_for, plan.columns, rows["index"][:])
    batch = Batch.of(Collator(run.tokenizer)([rows[k] for k in range(len(rows))]))
    found = stored(batch, [Logits()])[Logits()].tolist()
    names = [f"logit_{label}" for label in run.task.labels or ()]
    file = write(tmp_path / "answers.jsonl", [dict(zip(names, row, strict=True)) for row in found])
    distill(teacher, data, tmp_path / "live", recipe, signals=StoreChoice(str(plan.folder)))
    printed: list[str] = []
    with logged(printed):
        metrics = distill(TeacherAnswers(file), data, tmp_path / "file", recipe)
    assert same(*weights(tmp_path / "live", tmp_path / "file"))
    assert metrics["loyalty"] is None  # in the order of the training rows: none of validation
    assert metrics["teacher_source"] == {"kind": "a file of answers", "matched": "by their order"}
    assert any("no answers to the validation rows" in line for line in printed)


@pytest.fixture(scope="module")
def answer() -> Any:
    """A function from pairs of texts to probabilities that keeps what it was asked."""

    def function(pairs: list[Any]) -> Any:
        function.texts += pairs
        counts = [[" ".join(pair).split().count(word) for word in ("very", "fine", "a")] for pair in pairs]
        weights = np.exp(np.array(counts) / 3.0)
        return weights / weights.sum(axis=1, keepdims=True)

    function.texts = []
    function.labels = ("yes", "no", "maybe")
    return function


def test_a_file_and_a_function_give_the_same_student(small: Any, answer: Any, tmp_path: Path) -> None:
    data, recipe = small.choice("three"), recipe_for("coalition", small.base)
    counts = write_texts(data, tmp_path / "texts.jsonl", recipe)
    assert counts == {"train": 20, "copies": 20 * 2 * 4, "validation": 10}
    rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert any("[MASK]" in row["text"] for row in rows)
    found = answer([(row["text"], row["other"]) for row in rows])
    numbers = [dict(zip([f"probability_{x}" for x in answer.labels], p.tolist(), strict=True)) for p in found]
    answered = [{"id": row["id"], **own} for row, own in zip(rows, numbers, strict=True)]
    file = write(tmp_path / "answers.jsonl", answered[::-1])
    answer.texts.clear()
    by_function = distill(answer, data, tmp_path / "function", recipe)
    assert len(set(answer.texts)) == len(answer.texts)  # nothing is asked twice
    by_file = distill(TeacherAnswers(file), data, tmp_path / "file", recipe)
    assert same(*weights(tmp_path / "function", tmp_path / "file"))
    both = [run["loyalty"] for run in (by_function, by_file)]
    assert both[0]["label"] == both[1]["label"]
    assert both[0]["response"]["n"] > 0
    assert both[1]["response"] is None
    assert both[0]["saliency"] is None
    assert by_file["teacher"]["name"] == "answers.jsonl"
    wrong = next(k for k, row in enumerate(answered) if row["id"].startswith("train/3/1/0-"))
    for rest, message in (
        (answered[:wrong] + answered[wrong + 1 :], r"(?s)no answer to 1 changed copies.*copy 1/0 of row 3"),
        (answered[1:], r"(?s)no answer to 1 train rows, looked up by id.*row 0, the text 'the film"),
    ):
        with pytest.raises(DataError, match=message):
            distill(TeacherAnswers(write(tmp_path / "less.jsonl", rest)), data, tmp_path / "refused", recipe)
    with pytest.raises(DataError, match=r"(?s)no answer to 160 changed copies.*--write-texts"):
        distill(
            TeacherAnswers(file),
            data,
            tmp_path / "refused",
            recipe_for("coalition", small.base, "objectives.coalition_matching.seed=1"),
        )
    assert not (tmp_path / "refused").exists()


def test_what_needs_more_than_outputs_is_refused(small: Any, answer: Any, tmp_path: Path) -> None:
    data = small.choice("three")
    for method in ("adkd", "pkd"):
        with pytest.raises(
            RecipeError,
            match=r"(?s)teacher's outputs are known.*objectives among coalition_matching, hard_label, soft_label\n",
        ):
            distill(answer, data, tmp_path / "no", recipe_for(method, small.base, "student.embeddings=own"))
    with pytest.raises(RecipeError, match="teacher's outputs are known"):
        write_texts(data, tmp_path / "texts.jsonl", load_recipe("adkd"))
    with pytest.raises(RecipeError, match="near words"):
        distill(answer, data, tmp_path / "no", recipe_for("kd", small.base, "training.augment=2"))
    mapped = replace(data, label_map={"no": "no"})
    unnamed = lambda pairs: [[0.5, 0.25, 0.25]] * len(pairs)  # noqa: E731
    with pytest.raises(RecipeError, match="names no labels"):
        distill(unnamed, mapped, tmp_path / "no", recipe_for("kd", small.base))
    with pytest.raises(GradistillError, match="without its tokenizer"):
        distill(build("bert"), data, tmp_path / "no", recipe_for("kd", small.base))  # pyright: ignore[reportArgumentType]
    with pytest.raises(GradistillError, match="no model folder"):
        distill(str(tmp_path / "none"), data, tmp_path / "no", recipe_for("kd", small.base))
    for choice, options in (
        (StoreChoice("stores"), "--signals stores"),
        (StoreChoice("online"), "--signals online"),
        (StoreChoice(encoding="float16", verify="fast"), "--encoding float16 and --verify fast"),
    ):
        with pytest.raises(RecipeError, match=f"^{options} is about a store, and the signals of a teacher"):
            distill(answer, data, tmp_path / "no", recipe_for("kd", small.base), signals=choice)
    with pytest.raises(RecipeError, match=r"4 layers, and the checkpoint .* has 3"):
        distill(answer, data, tmp_path / "no", recipe_for("kd", small.base, "student.layers=4"))
    answer_of_others = lambda pairs: [[0.5, 0.5]] * len(pairs)  # noqa: E731
    answer_of_others.labels = ("good", "bad")  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(DataError, match="function has 2 outputs .good, bad., the data have 3 labels"):
        distill(answer_of_others, data, tmp_path / "no", recipe_for("kd", small.base))


def test_a_stopped_run_goes_on_whatever_its_teacher_is(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their identities in inputs.json are of several kinds; an edited function is another teacher."""
    data, printed = small.choice("three"), list[str]()
    one, other = (lambda pairs: [[0.5, 0.25, 0.25]] * len(pairs) for _ in range(2))
    edited = lambda pairs: [[0.25, 0.5, 0.25]] * len(pairs)  # noqa: E731
    for function in (one, other, edited):
        function.labels = ("yes", "no", "maybe")  # pyright: ignore[reportFunctionMemberAccess]
    both = [str(small.teachers["three"]), one]
    recipe = recipe_for("kd", small.base)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    for name, teacher in (("function", one), ("mean", both)):
        with monkeypatch.context() as patch:
            patch.setattr(training_run, "close_run", stopped)
            with pytest.raises(KeyboardInterrupt):
                distill(teacher, data, tmp_path / name, recipe)
        if teacher is one:
            with pytest.raises(RecipeError, match="teacher: "):
                distill(edited, data, tmp_path / name, recipe)
        printed.clear()
        with logged(printed):
            distill(teacher, data, tmp_path / name, recipe)
        assert any("checkpoint-" in line for line in printed), name


def test_a_function_made_with_other_values_is_another_teacher() -> None:
    def made(sharp: float, seen: list[str]) -> Any:
        def answer(texts: list[str]) -> list[list[float]]:
            seen.append(texts[0])
            return [[sharp, 1 - sharp]] * len(texts)

        return answer

    def plain(texts: list[str], sharp: float = 0.5) -> list[list[float]]:
        return [[sharp, 1 - sharp]] * len(texts)

    def other(texts: list[str], sharp: float = 0.25) -> list[list[float]]:
        return [[sharp, 1 - sharp]] * len(texts)

    kinds = (
        made(0.1, []), made(0.2, []), plain, other, partial(plain, sharp=0.1), partial(plain, sharp=0.2),
        partial(other, sharp=0.1),
    )  # fmt: skip
    assert len({*map(function_identity, kinds)}) == len(kinds)
    assert function_identity(made(0.1, ["text"])) == function_identity(made(0.1, [])), "lists fill as it runs"
    assert function_identity(partial(plain, sharp=0.1)) == function_identity(partial(plain, sharp=0.1))


@pytest.fixture(scope="module")
def other_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of its own width with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("byte-level")
    tokenizer = byte_level([" ".join(map(str, row.values())) for row in texts("three", 20)], 300)
    config = tr.RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=70, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    tr.RobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_student_with_another_tokenizer_learns_maps_of_words(
    small: Any, other_student: Path, tmp_path: Path
) -> None:
    printed: list[str] = []
    recipe = recipe_for(
        "coalition_rationale", other_student, "objectives.rationale.direction=0", "student.embeddings=own"
    )
    with logged(printed):
        metrics = distill(str(small.teachers["three"]), small.choice("three"), tmp_path / "run", recipe)
    assert any("compared by words" in line for line in printed)
    assert 0 < metrics["teacher_source"]["attribution_outside_words"] < 1
    for name in ("label", "probability", "response", "saliency"):
        assert {"value", "floor"} <= metrics["loyalty"][name].keys()
    assert metrics["loyalty"]["saliency"]["method"] == "gradient_x_input, |sum| by word"
    assert (metrics["student"]["layers"], metrics["student"]["hidden"]) == (1, 24)


def test_a_decoder_teaches_an_encoder(small: Any, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    tokenizer = byte_level()
    model = build("qwen3", vocab_size=300, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    model.config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    model.save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    asked = PromptedTeacher(str(teacher), "{text} / {other}\nIs it?")
    metrics = distill(asked, small.choice("three"), tmp_path / "run", recipe_for("adkd", small.base))
    assert metrics["loyalty"]["saliency"]["n"] > 0
    assert metrics["teacher_source"]["template"] == asked.template
    assert metrics["teacher_source"]["attribution_outside_words"] > 0
    written = load_recipe(file=tmp_path / "run" / "recipe.yaml")
    assert settled_prompt(str(teacher), written) == (asked, written)  # the run again, from its recipe alone
    with pytest.raises(
        RecipeError, match=r"The teacher has the prompt .*and the recipe's teacher\.template is"
    ):
        distill(
            PromptedTeacher(str(teacher), "{text} {other}"), small.choice("three"), tmp_path / "no", written
        )
    wrong = PromptedTeacher(str(teacher), "{text}")
    with pytest.raises(RecipeError, match="cannot be used: it holds"):
        distill(wrong, small.choice("three"), tmp_path / "no", recipe_for("kd", small.base))
    gkd = recipe_for("gkd", small.base, "student.embeddings=own")
    with pytest.raises(GradistillError, match=r"(?s)input gradients cannot be compared.*attribution_map, "):
        distill(str(teacher), small.choice("three"), tmp_path / "no", gkd)


def test_a_function_is_named_on_the_command_line_alone(small: Any, tmp_path: Path) -> None:
    """A string that looks like one is a model's name wherever it does not come from there."""
    with pytest.raises(GradistillError, match="python:os:getcwd"):
        distill("python:os:getcwd", small.choice("two"), tmp_path / "run", load_recipe("kd"))


def test_one_teacher_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_teacher.py").write_text("def predict(texts):\n    return [[0.5, 0.5]] * len(texts)\n")
    monkeypatch.chdir(tmp_path)
    given = TeacherOptions(teacher=["python:my_teacher:predict"]).choice()
    assert given(["a"]) == [[0.5, 0.5]]
    assert TeacherOptions(teacher=["runs/teacher"]).choice() == "runs/teacher"
    assert TeacherOptions(teacher=["a", "b"]).choice() == ["a", "b"]
    files = Path("a.csv"), Path("b.csv")
    assert TeacherOptions(teacher_answers=files[0], validation_answers=files[1]).choice() == TeacherAnswers(
        *files
    )
    for options, message in (
        ({}, "neither was given"),
        ({"teacher": ["t"], "teacher_answers": files[0]}, "both were given"),
        ({"teacher": ["t"], "validation_answers": files[1]}, "--teacher answers the validation rows itself"),
    ):
        with pytest.raises(RecipeError, match=message):
            TeacherOptions(**options).choice()


def test_a_prompt_is_for_models(small: Any, answer: Any, tmp_path: Path) -> None:
    """Wherever it was given: of several models it is around the texts of each."""
    assert prompted(["a", "b"], "{text}") == [PromptedTeacher("a", "{text}"), PromptedTeacher("b", "{text}")]
    recipe = recipe_for("kd", small.base, "teacher.template='{text} {other}'")
    for teacher, message in (
        (answer, "around the texts of function"),
        (["a", answer], "around the texts of function"),
        (TeacherAnswers(tmp_path / "answers.csv"), "a file of answers, which were answered already"),
        ([PromptedTeacher("a", "{text}"), "b"], "a model in a prompt"),
    ):
        with pytest.raises(RecipeError, match=message):
            distill(teacher, small.choice("three"), tmp_path / "no", recipe)
    data, folder = small.choice("three"), str(small.teachers["three"])
    with pytest.raises(RecipeError, match=r"teacher\.template is set, and this command"):
        prepared_run(folder, data, recipe)
    with pytest.raises(RecipeError, match="--write-texts"):
        write_texts(data, tmp_path / "texts.jsonl", recipe)
    with pytest.raises(RecipeError, match=r"(?s)'finetune' learns from labels alone.*no teacher"):
        load_recipe("finetune", changes=["teacher.template='{text}'"])


def test_ids_name_the_text() -> None:
    assert row_id("train", 3, ("a",)) != row_id("train", 3, ("b",))
    assert row_id("train", 3, ("a",), (1, 0)).startswith("train/3/1/0-")
