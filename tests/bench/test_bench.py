"""A whole bench of tiny models: run, stopped, gone on with, failing in part, and read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from datasets import Dataset

from bench.started import run_bench
from gradistill.bench import runner, task_setup
from gradistill.bench.cluster import Cluster
from gradistill.bench.glue_submission import student_logits, submission
from gradistill.bench.plan import cells, earlier_fingerprint, read_plan
from gradistill.bench.process_pool import Command
from gradistill.bench.result_lines import read_lines
from gradistill.bench.runner import bench
from gradistill.bench.task_setup import Rows
from gradistill.data.data_choice import DataChoice
from gradistill.data.tasks import TASKS
from gradistill.errors import RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.report.bench_page import bench_page, bench_tables
from hostile import HOSTILE
from small import logged, texts, write_table

pytestmark = pytest.mark.usefixtures("one_process")
BROKEN = ["student.layers=null", "student.checkpoint=/nowhere"]
QUICK = ["training.epochs=1", "training.batch_size=10", "training.learning_rate=0.01"]


@pytest.fixture(scope="module", autouse=True)
def _all_rows_of_response() -> Iterator[None]:
    """As in a process of its own, which the killed bench is compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradistill.commands.loyalty_sample.RESPONSE_ROWS", 50)
        yield


@pytest.fixture(scope="module")
def whole(small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """A bench with a teacher chosen among two, a given one, a method that fails, and predictions."""
    folder = tmp_path_factory.mktemp("bench")
    return (folder / "out", *run(folder, small))


def content(small: Any, **changes: Any) -> dict[str, Any]:
    return {
        "tasks": {
            "sst2": {"data": str(glue(small)), "layers": [2, 1]},
            "mine": {"data": str(small.tables["three"]), "teacher": str(small.teachers["three"])},
        },
        "methods": {"kd": None, "adkd": None, "gkd, broken": {"method": "gkd", "set": BROKEN}},
        "seeds": [0],
        "layers": [2],
        "set": QUICK,
        "teacher": {"model": str(small.base), "learning_rates": [0.02, 0.0001], "set": QUICK[:2]},
        "predictions": True,
        **changes,
    }  # fmt: skip


def glue(small: Any) -> Path:
    """The table of two labels as the hub has sst2: numbers for labels, and a test split without them."""
    folder = small.folder / "glue" / "sst2"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for split in ("train", "validation", "test"):
            with (small.tables["two"] / f"{split.replace('test', 'validation')}.csv").open() as source:
                rows = list(csv.DictReader(source))
            lines = [
                f"{row['text']},{'' if split == 'test' else int(row['label'] == 'positive')}" for row in rows
            ]
            (folder / f"{split}.csv").write_text("\n".join(["sentence,label", *lines]) + "\n")
    return folder


def run(folder: Path, small: Any, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    file, printed = folder / "bench.yaml", []
    file.write_text(yaml.safe_dump(content(small, **changes), sort_keys=False), encoding="utf-8")
    with logged(printed):
        return bench(read_plan(file), folder / "out", at_once=2), printed


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def test_every_cell_has_a_line_and_a_failed_one_has_the_reason_and_stops_no_other(whole: Any) -> None:
    output, found, printed = whole
    lines = lines_of(output)
    status = {(e["task"], e["layers"], e["method"], e["seed"]): e["status"] for e in lines}
    assert len(status) == 9
    assert {s for (_, _, method, _), s in status.items() if method == "gkd, broken"} == {"failed"}
    assert {s for (_, _, method, _), s in status.items() if method != "gkd, broken"} == {"done"}
    errors = [e["error"] for e in found["failed"]]
    assert len(errors) == 3
    assert all("/nowhere" in error and "Traceback" not in error for error in errors)
    assert (
        sum("left" in line for line in printed) == 11
    )  # two teachers and 9 students, each with what is left


def test_the_teacher_is_the_best_on_validation_of_those_that_were_tried(whole: Any) -> None:
    output, found, _ = whole
    tried = found["teachers"]["sst2"]["tried"]
    assert set(tried) == {"0.02", "0.0001"}
    assert found["teachers"]["mine"]["tried"] == {}
    best = max(tried, key=lambda rate: tried[rate])
    taught = {e["teacher"]["name"] for e in lines_of(output) if e["task"] == "sst2" and e["status"] == "done"}
    assert taught == {best}


def test_all_students_of_a_task_share_one_store_of_the_signals_of_all_methods(whole: Any, small: Any) -> None:
    output, _, _ = whole
    for layers in (2, 1):
        log = (output / "sst2" / f"{layers}-layers" / "adkd-0.log").read_text()
        assert "store-64" in "".join(log.split())  # the teacher has 64 positions
    assert not list((output / "cache").glob("*/manifest.json"))  # nobody built one of its own


def test_a_store_is_made_when_the_first_student_that_reads_it_starts(whole: Any) -> None:
    """Nobody waits for the stores of later tasks to see the students of the first one."""
    _, _, printed = whole
    stores = [k for k, line in enumerate(printed) if "the store of teacher signals" in line]
    first_of_other_task = next(k for k, line in enumerate(printed) if line.startswith("mine, "))
    last_of_first_task = max(k for k, line in enumerate(printed) if line.startswith("sst2, 2 layers"))
    assert [printed[k].partition(":")[0] for k in stores] == ["sst2", "mine"]
    assert last_of_first_task < stores[1] < first_of_other_task


def test_a_second_call_trains_nothing_but_what_failed_and_shows_the_same(whole: Any, small: Any) -> None:
    output, found, _ = whole
    before = {e["method"]: e["timing"] for e in lines_of(output) if e["status"] == "done"}
    stores = {file: file.stat().st_mtime_ns for file in output.glob("*/store-*/manifest.json")}
    again, printed = run(output.parent, small)
    assert len(stores) == 2
    # What all methods ask is there already.
    assert {file: file.stat().st_mtime_ns for file in stores} == stores
    assert again["panels"] == found["panels"]
    assert {e["method"]: e["timing"] for e in lines_of(output) if e["status"] == "done"} == before
    assert printed[0] == "6 of 9 students finished, 3 to train"


def test_a_call_that_stops_before_its_students_keeps_the_report(
    whole: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, found, _ = whole

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Bench, "_teach", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(output.parent, small)
    assert json.loads((output / "bench.json").read_text())["panels"] == found["panels"]


def test_a_line_of_an_earlier_version_is_known(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fingerprint has the descriptions of its recipe, and the path of a checkpoint."""
    output, _, _ = whole
    plan = read_plan(output.parent / "bench.yaml")
    again = runner.Bench(plan, output, runner.Concurrency(1, 1), lines=read_lines(output / "results.jsonl"))
    monkeypatch.setattr(again, "_run", lambda *_: None)
    again._teach(list(cells(plan)))
    for cell in task_setup.with_lengths(cells(plan), again.tasks):
        task = again.tasks[cell.task]
        inputs = {"rows": task.rows.fingerprint, "teacher": task.fingerprint}
        again.lines[cell.key]["fingerprint"] = earlier_fingerprint(cell, inputs)
    with logged(printed := []):
        again._train(list(cells(plan)))
    assert printed == ["6 of 9 students finished, 3 to train"]


@pytest.mark.slow
def test_a_store_serves_a_bench_of_fewer_methods_and_is_not_made_for_students_without_a_teacher(
    whole: Any, small: Any, tmp_path: Path
) -> None:
    output, _, _ = whole
    shutil.copytree(output, tmp_path / "out")
    manifest = next((tmp_path / "out" / "mine").glob("store-*/manifest.json"))
    before, tasks = manifest.stat().st_mtime_ns, {"mine": content(small)["tasks"]["mine"]}
    with_teacher = {"kd": None, "kd, heavy": {"method": "kd", "set": ["training.learning_rate=1e-3"]}}
    for methods, stands in ((with_teacher, True), ({**with_teacher, "finetune": None}, False)):
        if not stands:
            shutil.rmtree(manifest.parent)
        found, _ = run(tmp_path, small, tasks=tasks, methods=methods, predictions=False)
        assert found["failed"] == []
        assert manifest.is_file() is stands
        assert not stands or manifest.stat().st_mtime_ns == before


def test_another_method_adds_its_signals_to_the_store_that_is_there(
    whole: Any, small: Any, tmp_path: Path
) -> None:
    output, _, _ = whole
    shutil.copytree(output, tmp_path / "out")
    before = json.loads(next((output / "mine").glob("store-*/manifest.json")).read_text())["made_for"]
    methods = {"kd": None, "adkd": None, "coalition": None}
    tasks = {"mine": content(small)["tasks"]["mine"]}
    found, _ = run(tmp_path, small, tasks=tasks, methods=methods, predictions=False)
    assert found["failed"] == []
    after = json.loads(next((tmp_path / "out" / "mine").glob("store-*/manifest.json")).read_text())
    assert after["made_for"]["signals"][:-1] == before["signals"]


def test_a_full_disk_takes_no_store_away(
    whole: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    output, _, _ = whole
    shutil.copytree(output, tmp_path / "out")
    manifest = next((tmp_path / "out" / "mine").glob("store-*/manifest.json"))
    before, tasks = manifest.read_bytes(), {"mine": content(small)["tasks"]["mine"]}
    monkeypatch.setattr("gradistill.store.writer.shutil.disk_usage", lambda _: Usage)
    methods = {"kd": None, "adkd": None, "coalition": None}
    found, printed = run(tmp_path, small, tasks=tasks, methods=methods, predictions=False)
    assert found["failed"] == []
    assert manifest.read_bytes() == before
    assert [line for line in printed if "every student has its own store: the store needs" in line]


def test_a_teacher_of_another_model_or_data_is_made_again_and_one_of_an_earlier_version_is_kept(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, output = tmp_path / "bench.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content(small), sort_keys=False), encoding="utf-8")
    plan = read_plan(file)
    rows = task_setup.prepared_rows(plan, "sst2", output)

    def commands(of: Any = plan) -> int:
        return len(task_setup.teacher_commands(of, "sst2", output, rows))

    assert commands() == 2
    monkeypatch.setattr(task_setup, "finished_run", lambda *_: True)
    assert commands() == 0
    other = plan.model_copy(update={"teacher": plan.teacher.model_copy(update={"model": "other"})})
    for folder, _ in task_setup.teacher_runs(plan, "sst2", output).values():
        folder.mkdir()
    commands(other)
    assert not any(folder.exists() for folder, _ in task_setup.teacher_runs(plan, "sst2", output).values())
    for mark in (output / "sst2" / "teachers").glob("*.json"):
        mark.unlink()
    assert commands(other) == 0
    of_before = {"model": task_setup.weights_hash("other"), "data": "of nothing"}
    for folder, _ in task_setup.teacher_runs(plan, "sst2", output).values():
        folder.mkdir()
        task_setup.sibling_file(folder, ".json").write_text(json.dumps(of_before))
    assert commands(other) == 2  # and marks of today are written
    assert commands(other) == 0
    task = other.tasks["sst2"]
    for change in ({"validation_share": 0.4}, {"text_columns": ("other",)}, {"skip_incomplete": True}):
        for folder, _ in task_setup.teacher_runs(plan, "sst2", output).values():
            folder.mkdir()
        again = task.model_copy(update=change)
        assert commands(other.model_copy(update={"tasks": {"sst2": again}})) == 2, change


@pytest.mark.slow
def test_another_recipe_is_trained_anew_and_a_foreign_folder_is_left_alone(
    small: Any, tmp_path: Path
) -> None:
    one = {"tasks": {"mine": content(small)["tasks"]["mine"]}, "methods": ["kd"], "seeds": [0]}
    run(tmp_path, small, **one)
    _, printed = run(tmp_path, small, **one, keep_models=False)
    assert printed[0] == "1 of 1 students finished, 0 to train"
    _, printed = run(
        tmp_path,
        small,
        **one,
        keep_models=False,
        set=[*QUICK, "training.epochs=2"],
    )
    assert printed[0] == "0 of 2 students finished, 1 to train"
    assert not (
        tmp_path / "out" / "mine" / "2-layers" / "kd-0"
    ).exists()  # its line is kept, its weights are not
    other = tmp_path / "other"
    (other / "out").mkdir(parents=True)
    (other / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="no bench of ours: thesis.txt"):
        run(other, small, **one)
    assert [path.name for path in (other / "out").iterdir()] == ["thesis.txt"]


def test_a_job_of_a_cluster_is_known_by_what_it_reads(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipe and rows of an earlier call lie in the same files as those of the next one."""
    sent: dict[str, str] = {}

    def noted(self: Cluster, commands: Sequence[Command], *_: Any) -> None:
        sent.update({command.name: command.inputs_digest for command in commands})

    def marks(rows: int = 30, of_teacher: int = 20, **changes: Any) -> dict[str, str]:
        sent.clear()
        for split in ("train", "validation"):
            write_table(tmp_path / "data" / f"{split}.csv", texts("two", rows))
        tasks = {
            "taught": {"data": str(tmp_path / "data")},
            "mine": {"data": str(tmp_path / "data"), "teacher": str(small.teachers["two"])},
        }
        teacher = {"model": str(small.base), "set": [*QUICK[:2], f"training.max_train_rows={of_teacher}"]}
        plan = content(small, tasks=tasks, teacher=teacher, predictions=False, **changes)
        (tmp_path / "bench.yaml").write_text(yaml.safe_dump(plan))
        bench(read_plan(tmp_path / "bench.yaml"), tmp_path / "out", cluster=Cluster(None, tmp_path / "jobs"))
        return dict(sent)

    monkeypatch.setattr(Cluster, "run", noted)
    first = marks()
    assert marks() == first
    student, teacher = "mine, 2 layers, kd, seed 0", next(name for name in first if "teacher" in name)
    for changed, other in (
        (marks(set=[*QUICK, "training.average_weights=0.5"]), [student]),
        (marks(of_teacher=10), [teacher]),
        (marks(rows=40), [student, teacher]),
    ):
        assert {name for name in (student, teacher) if changed[name] != first[name]} == set(other)


def test_a_task_without_rows_fails_alone(small: Any, tmp_path: Path) -> None:
    tasks = {
        "mine": content(small)["tasks"]["mine"],
        "gone": {"data": str(tmp_path / "nowhere.csv"), "teacher": "x"},
    }
    found, _ = run(tmp_path, small, tasks=tasks, methods=["kd"], seeds=[0])
    assert [(e["task"], "nowhere.csv" in e["error"]) for e in found["failed"]] == [("gone", True)]
    assert [panel["task"] for panel in found["panels"]] == ["mine"]
    rows = tmp_path / "rows"
    shutil.copytree(small.tables["three"], rows)
    movable = {"mine": {**tasks["mine"], "data": str(rows)}}
    run(tmp_path, small, tasks=movable, methods=["kd"], seeds=[0])
    before = lines_of(tmp_path / "out")
    shutil.rmtree(rows)
    found, _ = run(tmp_path, small, tasks=movable, methods=["kd"], seeds=[0])
    assert (len(found["failed"]), found["panels"]) == (1, [])
    assert lines_of(tmp_path / "out") == before  # what was found is not lost


def test_predictions_are_in_the_leaderboards_format(whole: Any) -> None:
    output, _, _ = whole
    files = sorted(str(path.relative_to(output / "predictions")) for path in output.glob("predictions/*/*/*"))
    assert files == [f"{layers}-layers/{method}/SST-2.tsv" for layers in (1, 2) for method in ("adkd", "kd")]
    table = (output / "predictions" / files[0]).read_text().splitlines()
    assert table[0] == "index\tprediction"
    assert [row.split("\t")[0] for row in table[1:]] == [str(k) for k in range(10)]
    assert {row.split("\t")[1] for row in table[1:]} <= {"0", "1"}


@pytest.mark.parametrize(
    ("names", "label_map"),
    [
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], None),
        (["no", "perhaps", "yes"], {"contradiction": "no", "neutral": "perhaps", "entailment": "yes"}),
    ],
)
def test_predictions_are_by_the_tasks_labels_whatever_the_order_of_the_outputs(
    small: Any, tmp_path: Path, names: list[str], label_map: dict[str, str] | None
) -> None:
    """MNLI's models on the hub often have contradiction first, GLUE has it last."""
    task = replace(TASKS["mnli"], text_columns=("text", "other"))
    rows = Dataset.from_list([{**row, "label": 0, "index": k} for k, row in enumerate(texts("three", 8))])
    for folder, order, labels in (
        ("glue", [0, 1, 2], task.labels or ()),
        ("other", [2, 1, 0], names),
    ):
        model, tokenizer = (
            load_classifier(str(small.teachers["three"]))[0],
            load_tokenizer(str(small.teachers["three"])),
        )
        head = cast("Any", model).classifier
        with torch.no_grad():
            head.weight.copy_(head.weight[order].clone())
            head.bias.copy_(head.bias[order].clone())
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {name: k for k, name in enumerate(labels)}
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    read = Rows(DataChoice("x", label_map=label_map), task, {}, "")
    expected, _ = student_logits(tmp_path / "glue", rows, replace(read, choice=DataChoice("x")))
    assert student_logits(tmp_path / "other", rows, read)[0] == pytest.approx(expected)
    assert expected[:, 0] != pytest.approx(expected[:, 2])  # the order matters
    written = [line.split("\t")[1] for line in submission(task, expected).splitlines()[1:]]
    assert written == [(task.labels or ())[k] for k in expected.argmax(-1)]


@pytest.mark.slow
def test_a_killed_bench_takes_its_students_along_and_goes_on_to_the_same_end(
    whole: Any, small: Any, tmp_path: Path, forked: Any
) -> None:
    one = {
        "tasks": {"mine": content(small)["tasks"]["mine"]}, "methods": ["kd", "adkd"], "predictions": False,
    }  # fmt: skip
    file, output = tmp_path / "bench.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content(small, **one), sort_keys=False), encoding="utf-8")
    process = forked.Process(target=run_bench, args=(file, output))
    process.start()
    until = time.monotonic() + 120
    while not (output / "results.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    kept = lines_of(output)
    assert len(kept) == 1
    draft = output / "mine" / "2-layers" / ".gradistill-4711-kd-1.yaml"
    draft.write_text("half")
    found = bench(read_plan(file), output)  # no child holds a lock
    assert not draft.exists()
    assert lines_of(output)[0] == kept[0]
    killed, calm = (
        {
            (row["method"], name): figure["value"]
            for panel in one["panels"]
            if panel["task"] == "mine"
            for row in panel["rows"]
            for name, figure in row["figures"].items()
        }
        for one in (found, whole[1])
    )
    assert {method for method, _ in killed} == {"kd", "adkd"}
    # a process of its own has more threads: sums in another order
    assert killed == pytest.approx({name: calm[name] for name in killed}, abs=1e-4)


def test_page_and_tables_show_every_method_and_no_markup_from_outside(whole: Any) -> None:
    output, found, _ = whole
    page, tables = (output / "bench.html").read_text(), (output / "bench.md").read_text()
    assert (
        page.count("<svg") == len(found["panels"]) + 2 * 2
    )  # and cost against gain, of two figures at two depths
    for name in ("kd", "adkd", "from kd", "sst2, 2 layers", "gkd, broken"):
        assert name in page
        assert name in tables
    hostile = json.loads(json.dumps(found))
    hostile["title"] = hostile["baseline"] = HOSTILE[0]
    for panel in hostile["panels"]:
        panel["task"] = "".join(HOSTILE[:3])
        panel["rows"][0]["method"] = "<script>alert(1)</script>"
    hostile["failed"] = [{"task": s, "layers": 2, "method": s, "seed": 0, "error": s} for s in HOSTILE]
    shown, written = bench_page(hostile), bench_tables(hostile)
    assert "<script" not in shown
    assert "default-src &#39;none&#39;" in shown
    assert "script-src" not in shown
    for text in (shown, written):
        assert not {"\x1b", "\u202e", "\u2028"} & set(text)
    assert "<script>" not in written.replace("\\<", "")  # escaped


def test_a_task_names_its_columns_its_kind_and_a_share(small: Any, tmp_path: Path) -> None:
    """One file of nested JSON with whole numbers for scores: teachers and students read it alike."""
    rows = [
        {"body": {"text": f"the film was very {word} {k % 7} ."}, "meta": {"stars": 1 + k % 3}, "note": f"n {k}"}
        for k, word in enumerate(["great", "poor", "dull", "fine"] * 6)
    ]  # fmt: skip
    (tmp_path / "stars.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"data": "stars.jsonl", "label_column": "meta.stars", "text_columns": "body.text", "kind": "scores",
            "validation_share": 0.25}  # fmt: skip
    plan = content(small, tasks={"stars": task}, methods={"kd": None}, predictions=False)
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(plan))
    found = bench(read_plan(tmp_path / "bench.yaml"), tmp_path / "out")
    assert found["failed"] == []
    teachers = [
        json.loads(file.read_text()) for file in (tmp_path / "out/stars/teachers").glob("*/metrics.json")
    ]
    student = json.loads((tmp_path / "out/stars/2-layers/kd-0/metrics.json").read_text())
    assert {metrics["task"] for metrics in teachers} == {"stars"}
    assert student["task"] == "stars"
    assert "spearman" in student["eval"]
    assert {metrics["inputs"]["validation"] for metrics in teachers} == {student["inputs"]["validation"]}
    assert found["teachers"]["stars"]["rows"]["validation"] == pytest.approx(6, abs=2)


@pytest.mark.parametrize(
    "field", [{"kind": "class"}, {"validation_share": 2}, {"text_columns": []}, {"label_columns": "x"}]
)
def test_a_task_with_an_impossible_field_is_refused(field: dict[str, Any], tmp_path: Path) -> None:
    content = {"tasks": {"mine": {"data": "x", **field}}, "methods": ["kd"]}
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=next(iter(field))):
        read_plan(tmp_path / "bench.yaml")
