"""A search with tiny models: what it leaves, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from safetensors.torch import load_file, save_file

from gradistill.commands import tune as module
from gradistill.commands.search_space import SearchField, changes_of, parse_search_field, values_of
from gradistill.commands.tune import Tuning, tune
from gradistill.data import DataChoice
from gradistill.errors import RecipeError
from gradistill.recipe import Recipe, load_recipe
from small import logged, write_table

SPACE = (
    parse_search_field("training.learning_rate=0.0001..0.1:log"),
    parse_search_field("objectives.soft_label.temperature=1..4"),
)


def resolve(changes: Sequence[str]) -> Recipe:
    quick = ("training.epochs=2", "training.batch_size=10", "student.layers=2")
    return load_recipe("kd", changes=(*quick, *changes))


def search(small: Any, folder: Path, trials: int, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    printed: list[str] = []
    settings = {"space": SPACE, "minutes": None, "trials": trials or None, **changes}
    with logged(printed):
        found = tune(str(small.teachers["two"]), small.choice("two"), folder, Tuning(resolve, **settings))
    return found, printed


@pytest.fixture(scope="module")
def done(small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tune") / "out"
    return folder, search(small, folder, 3)[0]


def test_the_best_trial_its_recipe_and_its_student_are_kept_and_no_other(done: Any) -> None:
    folder, found = done
    assert json.loads((folder / "tune.json").read_text()) == found
    scores = [trial["score"] for trial in found["trials"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    best = found["trials"][0]
    assert best["score"] == pytest.approx((best["metric"] + best["response_loyalty"]) / 2)
    recipe = load_recipe(file=folder / "best.yaml")
    assert recipe.training.learning_rate == pytest.approx(best["values"]["training.learning_rate"])
    (kept,) = (folder / "trials").iterdir()
    written = yaml.safe_load((kept / "recipe.yaml").read_text())
    assert recipe.training.max_length is None  # the teacher's, whoever it will be
    assert written == recipe.settled_by(written).as_dict()


def test_the_first_trial_is_the_recipe_as_it_is_where_the_space_has_it(tmp_path: Path, done: Any) -> None:
    own = resolve(()).training.learning_rate
    around = (
        SearchField("training.learning_rate", own / 2, own * 2),
        parse_search_field("training.epochs=1..4"),
    )
    assert values_of(resolve(()), around) == {"training.learning_rate": own, "training.epochs": 2}
    assert values_of(resolve(()), (SearchField("training.learning_rate", own * 2, own * 3),)) is None
    study = optuna.create_study()
    module._Search(optuna, study, tmp_path, Tuning(resolve, around), around).begin()
    trial = study.ask()
    assert [one.value(trial) for one in around] == [own, 2]
    assert {"label_loyalty", "response_loyalty"} <= done[1]["floors"].keys()


def test_a_search_that_rewards_no_training_warns(tmp_path: Path) -> None:
    """Of a student that is its teacher's own layers, response loyalty may be high before the first step."""
    best = {"metric": 0.8, "response_loyalty": 0.961}
    one = module._Search(None, None, tmp_path, Tuning(resolve, SPACE), SPACE)
    with logged(lines := []):
        one._warn_of_floors(best, {"response_loyalty": 0.961})
        one._warn_of_floors(best, {"response_loyalty": 0.4})
        one._warn_of_floors(best, {})
    assert len(lines) == 1
    assert "response loyalty is 0.961, and that of the student before its first step 0.961" in lines[0]


def test_long_texts_stay_whole_in_changes() -> None:
    text = "one word after another " * 8
    fields = parse_search_field("student.checkpoint=a,b")
    assert changes_of([fields], {"student.checkpoint": text.strip()}) == [
        f"student.checkpoint={text.strip()}"
    ]


def test_the_same_call_searches_on(done: Any, small: Any) -> None:
    folder, found = done
    again, _ = search(small, folder, 1)
    assert len(again["trials"]) == 4
    values = [trial["values"]["training.learning_rate"] for trial in again["trials"]]
    assert len(set(values)) == 4  # and not with the draws of the first call
    assert {trial["trial"] for trial in found["trials"]} < {trial["trial"] for trial in again["trials"]}


def test_a_stopped_trial_is_the_first_that_a_resumed_search_asks_for(small: Any, tmp_path: Path) -> None:
    asked: list[Any] = []

    def stopped(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "distill", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(small, tmp_path / "out", 1)
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 'out' / 'tune.db'}")
    asked.append(study.trials[0].params)
    found, printed = search(small, tmp_path / "out", 1)
    assert printed[0] == "going on with trial 0"
    assert [trial["values"] for trial in found["trials"]] == asked
    assert found["failed"] == 1


@pytest.mark.slow
def test_a_trial_behind_the_others_is_stopped_early(small: Any, tmp_path: Path) -> None:
    """Of learning rates that learn nothing none is above the median of those that do."""
    found, printed = search(
        small, tmp_path / "out", 5, space=(parse_search_field("training.learning_rate=0.02..0.03"),)
    )
    assert found["pruned"] == 0
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 'out' / 'tune.db'}")
    steps = [trial.intermediate_values for trial in study.trials]
    assert all(set(values) == {100, 200} for values in steps)  # hundredths of epochs
    high = optuna.trial.create_trial(
        value=2.0, params={}, distributions={}, intermediate_values={100: 2.0, 200: 2.0}
    )
    for _ in range(6):
        study.add_trial(high)
    found, printed = search(
        small, tmp_path / "out", 1, space=(parse_search_field("training.learning_rate=0.02..0.03"),)
    )
    assert found["pruned"] == 1
    assert "stopped early" in printed[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": (parse_search_field("training.learning_rat=1..2"),)},
            "unknown key 'training.learning_rat'",
        ),
        ({"aim": ("accuracy",)}, "--maximize 'accuracy'"),
        ({"trials": 0}, "the search has no end"),
        ({"space": (SPACE[0], SPACE[0])}, "names training.learning_rate twice"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_made(
    small: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        search(small, tmp_path / "out", changes.pop("trials", 1), **changes)
    assert not (tmp_path / "out").exists()


def test_another_search_and_a_foreign_folder_are_left_alone(done: Any, small: Any, tmp_path: Path) -> None:
    folder, _ = done
    with pytest.raises(RecipeError, match="search with another aim"):
        search(small, folder, 1, aim=("metric",))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="no search of ours: thesis.txt"):
        search(small, tmp_path, 1)


def test_a_retrained_teacher_or_changed_rows_are_another_search_and_earlier_versions_go_on(
    small: Any, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(small.teachers["two"], teacher)
    data = replace(small.choice("two"), source=str(shutil.copytree(small.tables["two"], tmp_path / "rows")))
    marks = [(module._teacher_mark(str(teacher)), module._data_mark(data))]
    weights = load_file(teacher / "model.safetensors")
    save_file(
        {k: v + 1 for k, v in weights.items()}, teacher / "model.safetensors", metadata={"format": "pt"}
    )
    with (tmp_path / "rows" / "train.csv").open("a") as file:
        file.write("one more,positive\n")
    marks.append((module._teacher_mark(str(teacher)), module._data_mark(data)))
    about = [
        {"recipe": resolve(()).as_written(), "aim": ["metric"], "teacher": t, "data": d} for t, d in marks
    ]
    module._study(optuna, tmp_path, about[0], resolve(()))
    for name in ("teacher", "data"):
        with pytest.raises(RecipeError, match=f"search with another {name}"):
            module._study(optuna, tmp_path, {**about[0], name: about[1][name]}, resolve(()))
    moved = {name: f"/elsewhere{about[0][name].removeprefix(str(tmp_path))}" for name in ("teacher", "data")}
    module._study(optuna, tmp_path, {**about[0], **moved}, resolve(()))
    read = moved["data"].replace(" --", " --positive x --", 1)
    with pytest.raises(RecipeError, match="search with another data"):
        module._study(optuna, tmp_path, {**about[0], "data": read}, resolve(()))
    earlier = {**about[0], "teacher": str(teacher), "data": marks[0][1].rpartition(" ")[0]}
    (tmp_path / "before").mkdir()
    module._study(optuna, tmp_path / "before", earlier, resolve(()))
    module._study(optuna, tmp_path / "before", about[0], resolve(()))

    more = tmp_path / "more.csv"
    more.write_text("text\nthe film\n")
    data = replace(data, unlabelled=str(more))
    marked = {**about[0], **module._other_marks(str(teacher), data, str(teacher))}
    module._study(optuna, tmp_path / "before", marked, resolve(()))
    more.write_text("text\nanother film\n")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "positive", "1": "negative"}})
    )
    now = module._other_marks(str(teacher), data, str(teacher))
    assert now.keys() == module.NEWER
    for name in now:
        with pytest.raises(RecipeError, match=f"search with another {name}"):
            module._study(optuna, tmp_path / "before", {**marked, name: now[name]}, resolve(()))


def test_a_loyalty_that_the_task_does_not_have_is_named(small: Any, tmp_path: Path) -> None:
    tuning = Tuning(resolve, SPACE, ("label_loyalty",), None, 1)
    with pytest.raises(RecipeError, match="'label_loyalty', which this task does not have"):
        tune(str(small.teachers["score"]), small.choice("score"), tmp_path / "out", tuning)
    printed: list[str] = []
    with logged(printed):
        other = Tuning(resolve, SPACE, ("metric",), None, 1)
        found = tune(str(small.teachers["score"]), small.choice("score"), tmp_path / "out", other)
    assert len(found["trials"]) == 1
    assert any("going on with trial 0" in line for line in printed)
    assert not any("epoch" in line for line in printed), "the trial was trained before"


def test_a_task_without_response_loyalty_is_searched_by_its_metric(small: Any, tmp_path: Path) -> None:
    """Texts of one word; nobody named what to maximise."""
    rows = [{"text": ("fine", "awful")[k % 2], "label": ("positive", "negative")[k % 2]} for k in range(20)]
    for split in ("train", "validation"):
        write_table(tmp_path / "data" / f"{split}.csv", rows)
    printed: list[str] = []
    with logged(printed):
        choice = DataChoice(str(tmp_path / "data"), label_column="label", text_columns=("text",))
        found = tune(str(small.teachers["two"]), choice, tmp_path / "out", Tuning(resolve, SPACE, trials=2))
    assert "response_loyalty" not in found["trials"][0]
    assert found["trials"][0]["score"] == found["trials"][0]["metric"]
    assert sum("no response_loyalty on this task" in line for line in printed) == 1


@pytest.mark.parametrize("name", ["a?1", "b%20c", "d#e"])
def test_the_database_is_in_the_folder_whatever_its_name(name: str, small: Any, tmp_path: Path) -> None:
    def study(folder: Path) -> Any:
        folder.mkdir(exist_ok=True)
        about = {"recipe": load_recipe("kd").as_written(), "teacher": "t 0", "data": "d 0", "aim": ["metric"]}
        return module._study(optuna, folder, about, load_recipe("kd"))

    study(tmp_path / name).enqueue_trial({"x": 1})
    assert (tmp_path / name / "tune.db").is_file()
    assert len(study(tmp_path / name).trials) == 1
    assert not study(tmp_path / "another").trials


def test_without_optuna_the_extra_is_named(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RecipeError, match=r"gradistill\[tune\]"):
        search(small, tmp_path / "out", 1)
