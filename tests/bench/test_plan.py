"""Bench files: what they may say, and the cells that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gradistill.bench.plan import cells, fingerprint, read_plan, suite
from gradistill.bench.task_setup import teacher_runs
from gradistill.errors import RecipeError
from gradistill.recipe.recipe_files import shipped_methods

SMALL = {"data": "rows", "tasks": ["sst2", "mrpc"], "methods": ["kd", "adkd"]}


def written(folder: Path, **content: object) -> Path:
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **content}, sort_keys=False), encoding="utf-8")
    return file


def test_cells_are_tasks_times_depths_times_methods_times_seeds_first_depths_first(tmp_path: Path) -> None:
    tasks = {"sst2": {"layers": [3, 2]}, "mrpc": None}
    found = list(cells(read_plan(written(tmp_path, tasks=tasks, seeds=[4, 7]))))
    assert [(c.task, c.layers, c.method, c.seed) for c in found[:6]] == [
        ("sst2", 3, "kd", 4), ("sst2", 3, "adkd", 4), ("mrpc", 3, "kd", 4), ("mrpc", 3, "adkd", 4),
        ("sst2", 3, "kd", 7), ("sst2", 3, "adkd", 7),
    ]  # fmt: skip
    assert {(c.task, c.layers) for c in found[8:]} == {("sst2", 2)}
    assert len(found) == 12
    assert len({c.folder for c in found}) == 12
    assert {(c.recipe.training.seed, c.recipe.student.layers) for c in found} == {
        (4, 3),
        (4, 2),
        (7, 3),
        (7, 2),
    }


def test_a_depth_that_is_named_twice_is_one(tmp_path: Path) -> None:
    found = list(cells(read_plan(written(tmp_path, layers=[2, 2, 1], seeds=[0, 0]))))
    assert len(found) == len({c.folder for c in found}) == 8


def test_changes_come_in_the_order_bench_task_method(tmp_path: Path) -> None:
    change = "training.epochs={}".format
    tasks = {"sst2": {"set": [change(2)]}, "mrpc": {}}
    methods = {"kd": None, "kd, long": {"method": "kd", "set": change(3)}}
    plan = read_plan(written(tmp_path, tasks=tasks, methods=methods, set=[change(1)], seeds=[0]))
    epochs = {(c.task, c.method): c.recipe.training.epochs for c in cells(plan)}
    assert epochs == {("sst2", "kd"): 2, ("sst2", "kd, long"): 3, ("mrpc", "kd"): 1, ("mrpc", "kd, long"): 3}


def test_a_task_may_change_single_methods_last(tmp_path: Path) -> None:
    change = "training.epochs={}".format
    tasks = {"sst2": {"set": [change(2)], "method_set": {"adkd": change(5)}}, "mrpc": {}}
    methods = {"kd": None, "adkd": {"set": change(3)}}
    plan = read_plan(written(tmp_path, tasks=tasks, methods=methods, seeds=[0]))
    epochs = {(c.task, c.method): c.recipe.training.epochs for c in cells(plan)}
    assert epochs["sst2", "adkd"] == 5
    assert epochs["mrpc", "adkd"] == 3
    assert epochs["sst2", "kd"] == 2


def test_a_method_may_be_for_some_tasks_alone(tmp_path: Path) -> None:
    methods = {"kd": None, "adkd": {"tasks": ["mrpc"]}}
    plan = read_plan(written(tmp_path, methods=methods, seeds=[0]))
    assert [(c.task, c.method) for c in cells(plan)] == [("sst2", "kd"), ("mrpc", "kd"), ("mrpc", "adkd")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tasks": {"mrpc": {"method_set": {"adk": "a=1"}}}}, r"(?s)changes the method 'adk'.*'adkd'"),
        ({"tasks": {"mrpc": {"dat": "x"}}}, r"(?s)unknown key 'tasks.mrpc.dat'.*did you mean 'data'"),
        (
            {"methods": {"kd": {"methd": "kd"}}},
            r"(?s)unknown key 'methods.kd.methd'.*Known: method, seeds, set",
        ),
        ({"teacher": {"modle": "x"}}, r"(?s)unknown key 'teacher.modle'.*did you mean 'model'"),
        ({"title": "x", "seed": 3}, r"(?s)unknown key 'seed'.*did you mean 'seeds'"),
        ({"seeds": [2**32]}, r"(?s)seeds.0 is 4294967296.*equal to 4294967295"),
        ({"seeds": [-1]}, r"seeds.0 is -1"),
        ({"seeds": [0, True]}, r"the bench's seeds.1 is a truth value"),
        ({"tasks": {"mrpc": {"train_rows": True}}}, r"tasks.mrpc.train_rows is a truth value"),
    ],
)
def test_the_hint_for_a_key_names_keys_of_the_same_place(
    content: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        read_plan(written(tmp_path, **content))


def test_a_method_may_have_seeds_of_its_own(tmp_path: Path) -> None:
    methods = {"kd": {"seeds": [0, 1, 5]}, "adkd": None}
    plan = read_plan(written(tmp_path, tasks=["mrpc"], methods=methods, seeds=[0, 1]))
    assert [(c.method, c.seed) for c in cells(plan)] == [
        ("kd", 0), ("adkd", 0), ("kd", 1), ("adkd", 1), ("kd", 5),
    ]  # fmt: skip


def test_students_are_what_their_last_epoch_leaves_unless_the_authors_settings_are_asked_for(
    tmp_path: Path,
) -> None:
    ours, theirs = (
        next(cells(read_plan(written(tmp_path, settings=settings)))) for settings in ("default", "authors")
    )
    assert ours.recipe.training.arguments["load_best_model_at_end"] is False
    assert "load_best_model_at_end" not in theirs.recipe.training.arguments


def test_paths_are_relative_to_the_file_and_to_the_caller_where_the_command_line_gives_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows" / "sst2").mkdir(parents=True)
    file = written(tmp_path)
    assert read_plan(file).tasks["sst2"].data == str(tmp_path / "rows" / "sst2")
    assert read_plan(file).tasks["mrpc"].data == "rows/mrpc"  # nothing there: a hub id
    assert read_plan(file, "elsewhere").tasks["sst2"].data == "elsewhere/sst2"


def test_models_are_relative_to_the_file_too_and_a_hub_id_stays(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    here = str(tmp_path / "small")
    checkpoints = ["student.checkpoint=small", "student.layers=null"]
    plan = read_plan(
        written(
            tmp_path,
            tasks={"mrpc": {"method_set": {"of_task": checkpoints}}},
            methods={
                "kd": None,
                "own": {"method": "kd", "set": checkpoints},
                "hub": {"method": "kd", "set": ["student.checkpoint=owner/small", "student.layers=null"]},
                "of_task": {"method": "kd"},
            },
            teacher={"model": "small"},
            seeds=[0],
        )
    )
    found = {cell.method: cell.recipe.student.checkpoint for cell in cells(plan)}
    assert plan.teacher.model == here
    assert found == {"kd": None, "own": here, "hub": "owner/small", "of_task": here}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": ["sst2"]}, "unknown key 'task'.*(?s:.)*did you mean 'tasks'"),
        ({"methods": ["kd", "adkdd"]}, "no method 'adkdd'.*(?s:.)*did you mean 'adkd'"),
        ({"baseline": "pkd"}, "baseline is 'pkd'"),
        ({"tasks": []}, "bench's tasks"),
        ({"seeds": []}, "bench's seeds"),
        ({"seeds": ["one"]}, "bench's seeds.0 is 'one'"),
        ({"methods": {"kd": None, "a/b": {"method": "kd"}}}, "calls something 'a/b'"),
        ({"methods": {"kd": None, "a b": {"method": "kd"}, "a-b": {"method": "kd"}}}, "would share a folder"),
        ({"methods": {"kd": {"tasks": ["cola"]}}}, "names the task 'cola'"),
        ({"methods": {"kd": 3}}, "bench's methods.kd"),
        ({"set": ["training.epoch=3"]}, "unknown key 'training.epoch'"),
        ({"set": ["training.seed=3"]}, "set its seed or its depth"),
        ({"set": ["student.layers=9"]}, "set its seed or its depth"),
        ({"data": None}, "names no place for the rows of 'sst2'"),
        ({"teacher": {"learning_rates": []}}, "bench's teacher.learning_rates"),
        (
            {"teacher": {"set": ["training.learning_rate=1e-3"]}},
            r"(?s)teacher.set has.*learning_rates: \[1e-3\]",
        ),
        (
            {"tasks": {"rte": {"teacher_set": ["training.learning_rate=1"]}}},
            "tasks.rte.teacher_set has training",
        ),
        (
            {"tasks": {"rte": {"teacher": "t", "teacher_set": ["training.epochs=1"]}}},
            "(?s)there already: t.*or how",
        ),
        ({"tasks": {"rte": {"teacher": "t", "learning_rates": [1e-3]}}}, "tasks.rte has learning_rates, and"),
        ({"tasks": {"rte": {"learning_rates": []}}}, "bench's tasks.rte.learning_rates"),
        ({"predictions": True, "keep_models": False}, "predictions is true and keep_models false"),
    ],
)
def test_what_a_bench_cannot_be_is_refused_with_its_place(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        list(cells(read_plan(written(tmp_path, **change))))


def test_a_task_may_have_learning_rates_of_its_own(tmp_path: Path) -> None:
    tasks = {"sst2": None, "rte": {"learning_rates": [3e-4]}}
    plan = read_plan(written(tmp_path, tasks=tasks, teacher={"learning_rates": [1e-5, 1e-4]}))
    found = {name: [*teacher_runs(plan, name, tmp_path)] for name in tasks}
    assert found == {"sst2": ["1e-05", "0.0001"], "rte": ["0.0003"]}
    ((_, recipe),) = teacher_runs(plan, "rte", tmp_path).values()
    assert recipe.training.learning_rate == 3e-4


def test_a_fingerprint_knows_recipe_rows_and_teacher(tmp_path: Path) -> None:
    first, second, *_ = cells(read_plan(written(tmp_path)))
    marks = [
        fingerprint(first, {"rows": "a"}),
        fingerprint(second, {"rows": "a"}),
        fingerprint(first, {"rows": "b"}),
    ]
    assert len(set(marks)) == 3
    assert fingerprint(first, {"rows": "a"}) == marks[0]


def test_descriptions_change_no_fingerprint_and_a_checkpoint_counts_by_its_content(tmp_path: Path) -> None:
    cell, *_ = cells(read_plan(written(tmp_path)))
    other = replace(cell, recipe=cell.recipe.model_copy(update={"title": "Another", "summary": "text"}))
    assert fingerprint(other, {}) == fingerprint(cell, {})
    marks = []
    for place, weights in (("one", "a"), ("two", "a"), ("two", "b")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "model.safetensors").write_text(weights)
        recipe = cell.recipe.with_student_fields(checkpoint=str(tmp_path / place))
        marks.append(fingerprint(replace(cell, recipe=recipe), {}))
    assert marks[0] == marks[1] != marks[2]


def test_labels_may_be_numbers_and_columns_may_have_blanks_after_commas(tmp_path: Path) -> None:
    task = {
        "data": "rows",
        "positive": 1,
        "teacher": "t",
        "label_map": {0: "LABEL_1"},
        "text_columns": "a, b",
    }
    plan = read_plan(written(tmp_path, tasks={"mine": task}))
    mine = plan.tasks["mine"]
    assert (mine.positive, dict(mine.label_map or {}), mine.text_columns) == (
        "1",
        {"0": "LABEL_1"},
        ("a", "b"),
    )


def test_shipped_suites_can_be_run() -> None:
    plan = read_plan(suite("glue"))
    assert plan.tasks["mnli"].data == "glue/mnli"
    assert set(plan.methods) <= set(shipped_methods())
    assert all(cell.recipe.student.layers == 6 for cell in cells(plan))
    with pytest.raises(RecipeError, match="no suite 'glu'"):
        suite("glu")
