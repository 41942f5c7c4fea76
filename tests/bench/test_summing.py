"""The comparison against computation by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from gradistill.auditing.comparison import holm
from gradistill.auditing.trained_figures import NOTE
from gradistill.bench.plan import BenchPlan, read_plan
from gradistill.bench.result_lines import read_lines, write_lines
from gradistill.bench.results import range_of, summary
from gradistill.report.bench_page import bench_page, bench_rows, bench_tables
from gradistill.report.bench_plots import bench_plots
from gradistill.report.svg import Plot


def plan_of(folder: Path) -> BenchPlan:
    file = folder / "bench.yaml"
    content = {"data": "d", "tasks": ["sst2", "rte"], "methods": ["kd", "adkd", "gkd"], "seeds": [0, 1, 2]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_plan(file)


def line(task: str, method: str, seed: int, accuracy: float, saliency: float | None = 0.5) -> dict[str, Any]:
    loyal = {"saliency": None if saliency is None else {"value": saliency}, "label": {"value": 0.9}}
    return {
        "task": task, "layers": 3, "method": method, "seed": seed, "select": "accuracy", "at_once": 2,
        "eval": {"accuracy": accuracy}, "teacher_eval": {"accuracy": 0.9}, "loyalty": loyal,
        "timing": {"train_s": 10.0 + seed}, "versions": {"torch": "2"},
    }  # fmt: skip


ACCURACY = {
    ("sst2", "kd"): (0.80, 0.82, 0.81),
    ("sst2", "adkd"): (0.84, 0.85, 0.83),
    ("sst2", "gkd"): (0.80, 0.81, 0.85),
    ("rte", "kd"): (0.60, 0.58, 0.61),
    ("rte", "adkd"): (0.59, 0.60, 0.55),
    ("rte", "gkd"): (0.70, 0.60, 0.50),
}
LINES = [line(*key, seed, value) for key, values in ACCURACY.items() for seed, value in enumerate(values)]


def of(panel: dict[str, Any], method: str) -> dict[str, Any]:
    return next(row for row in panel["rows"] if row["method"] == method)


def test_a_constant_prediction_stands_next_to_the_teacher(tmp_path: Path) -> None:
    lines = [row | {"constant_eval": {"accuracy": 0.55}} for row in LINES]
    assert "Teacher: accuracy 0.900. Constant prediction: accuracy 0.550." in bench_tables(
        summary(lines, [], {}, plan_of(tmp_path))
    )
    assert "Constant" not in bench_tables(summary(LINES, [], {}, plan_of(tmp_path)))


def test_the_floor_is_a_row_of_its_own(tmp_path: Path) -> None:
    """One untrained student a seed; the loyalties of methods that start alike are the same."""
    lines = [
        {**row, "loyalty": {"saliency": {"value": 0.5, "floor": 0.1 * row["seed"]}, "response": None}}
        for row in LINES
    ]
    found = summary(lines, [], {}, plan_of(tmp_path))
    floor = found["panels"][0]["untrained"]
    assert floor["saliency loyalty"]["value"] == pytest.approx(0.1)
    assert floor["saliency loyalty"]["n"] == 3
    assert "| before training |" in bench_tables(found)
    assert "| before training |" not in bench_tables(summary(LINES, [], {}, plan_of(tmp_path)))


def test_a_seed_without_a_figure_is_in_no_difference(tmp_path: Path) -> None:
    """A student that predicts one score for every row has no correlation with its teacher."""
    lines = [{**row, "loyalty": {"prediction": {"value": 0.5 + 0.1 * row["seed"]}}} for row in LINES]
    lines[4]["loyalty"] = {"prediction": {"value": None}}
    apart = of(summary(lines, [], {}, plan_of(tmp_path))["panels"][0], "adkd")["apart"]
    assert (apart["prediction loyalty"]["n"], apart["accuracy"]["n"]) == (2, 3)


def test_means_intervals_and_paired_differences_are_scipys(tmp_path: Path) -> None:
    panel = summary(LINES, [], {}, plan_of(tmp_path))["panels"][0]
    ours, theirs = np.array(ACCURACY["sst2", "adkd"]), np.array(ACCURACY["sst2", "kd"])
    found = of(panel, "adkd")["figures"]["accuracy"]
    low, high = stats.t.interval(0.95, 2, ours.mean(), stats.sem(ours))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((ours.mean(), low, high))
    apart = of(panel, "adkd")["apart"]["accuracy"]
    assert apart["value"] == pytest.approx((ours - theirs).mean())
    assert apart["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert of(panel, "kd")["apart"] == {}
    assert of(panel, "adkd")["figures"]["retention"]["value"] == pytest.approx((ours / 0.9).mean())


def test_p_values_of_the_whole_bench_are_corrected_together(tmp_path: Path) -> None:
    panels = summary(LINES, [], {}, plan_of(tmp_path))["panels"]
    every = [
        a for p in panels for row in p["rows"] for a in row["apart"].values() if a and a["p"] is not None
    ]
    assert (
        len(every) == 8
    )  # accuracy and retention, of two methods, on two tasks; the loyalties do not differ
    assert [a["p_corrected"] for a in every] == holm([a["p"] for a in every])


def test_ranks_and_retention_are_means_over_tasks(tmp_path: Path) -> None:
    over = {entry["method"]: entry for entry in summary(LINES, [], {}, plan_of(tmp_path))["over_tasks"]}
    assert {name: entry["ranks"]["metric"] for name, entry in over.items()} == {
        "kd": 2.5,
        "adkd": 2.0,
        "gkd": 1.5,
    }
    assert over["kd"]["ranks"]["saliency loyalty"] == 2.0  # all alike share the mean of their places
    means = [np.mean(ACCURACY[task, "gkd"]) / 0.9 for task in ("sst2", "rte")]
    assert over["gkd"]["figures"]["retention"] == pytest.approx(np.mean(means))
    more = np.mean(means) - over["kd"]["figures"]["retention"]
    assert over["gkd"]["gains"]["retention"]["value"] == pytest.approx(more)


def test_the_terminal_has_no_figures_that_no_task_has(tmp_path: Path) -> None:
    found = summary(LINES, [], {}, plan_of(tmp_path))
    rows = bench_rows(found)
    assert [row["method"] for row in rows] == ["kd", "adkd", "gkd"]
    assert [*rows[0]] == ["method", "layers", "tasks", "step", "retention", "label", "sal.", "rank"]
    assert bench_rows(summary([], [], {}, plan_of(tmp_path))) == []


def test_tasks_that_lack_a_method_do_not_count_over_tasks_and_unpaired_seeds_in_no_difference(
    tmp_path: Path,
) -> None:
    some = [
        e
        for e in LINES
        if (e["task"], e["method"]) != ("rte", "gkd") and (e["method"], e["seed"]) != ("kd", 1)
    ]
    found = summary(some, [], {}, plan_of(tmp_path))
    assert {tuple(entry["tasks"]) for entry in found["over_tasks"]} == {("sst2",)}
    apart = of(found["panels"][0], "adkd")["apart"]["accuracy"]
    assert (apart["n"], apart["value"]) == (2, pytest.approx(0.03))


def test_a_single_seed_has_no_interval_and_a_missing_loyalty_no_figure(tmp_path: Path) -> None:
    lines = [line("sst2", "kd", 0, 0.8, None), line("sst2", "adkd", 0, 0.9, None)]
    panel = summary(lines, [], {}, plan_of(tmp_path))["panels"][0]
    assert of(panel, "adkd")["figures"]["accuracy"] == {"value": 0.9, "low": None, "high": None, "n": 1}
    assert of(panel, "adkd")["apart"]["accuracy"]["p"] is None
    assert "saliency loyalty" not in of(panel, "adkd")["figures"]


def test_seeds_that_differ_by_rounding_alone_prove_nothing(tmp_path: Path) -> None:
    values = {"kd": (0.81, 0.83), "adkd": (0.81 - 0.1 - 0.2, 0.83 - 0.3)}  # -0.3 twice, but for the last bit
    lines = [
        line("sst2", method, seed, value) for method, own in values.items() for seed, value in enumerate(own)
    ]
    apart = of(summary(lines, [], {}, plan_of(tmp_path))["panels"][0], "adkd")["apart"]["accuracy"]
    assert (apart["value"], apart["p"]) == (pytest.approx(-0.3), None)


def test_nothing_yet_is_an_empty_comparison(tmp_path: Path) -> None:
    found = summary([], [], {}, plan_of(tmp_path))
    assert (found["panels"], found["over_tasks"], found["at_once"]) == ([], [], 0)


def test_intervals_over_seeds_stay_in_the_range_of_the_figure_and_are_marked(tmp_path: Path) -> None:
    """Accuracies of .99, .80 and 1.0: Student's t reaches to 1.21, retention to 1.34 of at most 1 / .9."""
    values = (0.99, 0.80, 1.0)
    lines = [line("sst2", method, seed, v) for method in ("kd", "adkd") for seed, v in enumerate(values)]
    row = of(summary(lines, [], {}, plan_of(tmp_path))["panels"][0], "adkd")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert high > 1
    found = row["figures"]["accuracy"]
    assert (found["low"], found["high"], found["clipped"]) == (pytest.approx(low), 1.0, True)
    assert row["figures"]["retention"]["high"] == pytest.approx(1 / 0.9)
    assert "‡" in bench_tables(summary(lines, [], {}, plan_of(tmp_path)))


def test_a_gain_of_a_correlation_may_be_larger_than_1(tmp_path: Path) -> None:
    """From −.7 to .7 and .8: the mean gain 1.45 was put outside of its own interval, which ended at 1."""
    kd = [line(task, "kd", 0, 0.8, saliency=-0.7) for task in ("sst2", "rte")]
    better = [line(t, "adkd", 0, 0.8, saliency=s) for t, s in (("sst2", 0.7), ("rte", 0.8))]
    found = summary([*kd, *better], [], {}, plan_of(tmp_path))
    (gain,) = (m["gains"]["saliency loyalty"] for m in found["over_tasks"] if m["method"] == "adkd")
    assert gain["value"] == pytest.approx(1.45)
    assert gain["low"] <= gain["value"] <= gain["high"] == 2.0


def test_a_student_keeps_the_marks_of_the_student_that_it_started_from(tmp_path: Path) -> None:
    started = line("sst2", "kd", 0, 0.8)
    started["loyalty"]["response"] = {"value": 0.9, "trained_on": ["coalition_matching"]}
    figures = of(summary([started], [], {}, plan_of(tmp_path))["panels"][0], "kd")["figures"]
    assert figures["response loyalty"]["trained_on"] == ["coalition_matching"]
    assert "trained_on" not in figures["label loyalty"]


def test_a_figure_on_which_a_method_trains_is_marked(tmp_path: Path) -> None:
    lines = [line("sst2", method, seed, 0.8) for method in ("kd", "adkd") for seed in range(2)]
    found = summary(lines, [], {}, plan_of(tmp_path))
    assert [entry["trained_on"] for entry in found["over_tasks"]] == [[], ["saliency loyalty"]]
    for shown in (bench_tables(found), bench_page(found)):
        assert (
            shown.count("†") == 5
        )  # over tasks and of the task, each with its difference, and what it means
    assert [row["sal."] for row in bench_rows(found)] == [0.5, "0.500†"]
    apart = [line("sst2", "kd", 0, 0.8), line("rte", "adkd", 0, 0.8)]
    assert NOTE in bench_tables(summary(apart, [], {}, plan_of(tmp_path)))
    assert ".Where" not in bench_tables(found)


def test_plots_mark_a_method_that_trains_on_what_they_show(tmp_path: Path) -> None:
    def plots(trained_on: list[str]) -> list[Plot]:
        lines = [line("sst2", method, 0, 0.8) for method in ("kd", "adkd")]
        for one, by in zip(lines, ([], trained_on), strict=True):
            one["loyalty"]["response"] = {"value": 0.9} | ({"trained_on": by} if by else {})
        return bench_plots(summary(lines, [], {}, plan_of(tmp_path)))

    marks = [
        ("adkd †" in plot.svg, plot.note.endswith(f" {NOTE}.")) for plot in plots(["coalition_matching"])
    ]
    assert marks == [(True, True), (True, True), (False, False)]  # the last is of labels
    assert not any("†" in f"{plot.svg} {plot.note}" for plot in plots([]))


def test_seeds_that_agree_have_no_interval(tmp_path: Path) -> None:
    lines = [line("sst2", "kd", seed, 0.8) for seed in range(3)]
    found = of(summary(lines, [], {}, plan_of(tmp_path))["panels"][0], "kd")["figures"]["accuracy"]
    assert found == {"value": pytest.approx(0.8), "low": None, "high": None, "n": 3}
    assert "clipped" not in found


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("accuracy", (0, 1)),
        ("macro_f1", (0, 1)),
        ("matthews_correlation", (-1, 1)),
        ("saliency loyalty", (-1, 1)),
        ("response loyalty", (-1, 1)),
        ("prediction loyalty", (-1, 1)),
        ("spearman", (-1, 1)),
        ("exact_match", (0, 1)),
        ("average_precision", (0, 1)),
        ("micro_f1", (0, 1)),
        ("exact_match loyalty", (0, 1)),
        ("span loyalty", (0, 1)),
        ("span_precision", (0, 1)),
        ("label loyalty", (0, 1)),
    ],
)
def test_figures_have_a_range(name: str, bounds: tuple[float, float]) -> None:
    assert range_of(name, LINES[0]) == bounds


def test_lines_hold_any_character(tmp_path: Path) -> None:
    odd = [
        line("sst2", f"kd \u2028 {end}", 0, 0.8) | {"fingerprint": "x", "status": "done"}
        for end in ("\x85", "\x0b", "é")
    ]
    write_lines(tmp_path / "results.jsonl", odd)
    assert [*read_lines(tmp_path / "results.jsonl").values()] == odd


def test_a_figure_that_a_method_lacks_on_a_task_is_compared_on_the_other_tasks(tmp_path: Path) -> None:
    """All methods had .9 on sst2 and .1 on rte; the one without a value on rte had the best mean, .9."""
    methods, of_task = ("kd", "adkd", "gkd"), {"sst2": 0.9, "rte": 0.1}
    lines = [
        line(task, method, 0, 0.8, saliency=None if (task, method) == ("rte", "adkd") else value)
        for task, value in of_task.items() for method in methods
    ]  # fmt: skip
    over = {entry["method"]: entry for entry in summary(lines, [], {}, plan_of(tmp_path))["over_tasks"]}
    assert [over[name]["figures"]["saliency loyalty"] for name in methods] == [0.9] * 3
    assert [over[name]["gains"]["saliency loyalty"]["n"] for name in ("adkd", "gkd")] == [1, 1]
    assert over["gkd"]["gains"]["retention"]["n"] == 2
    without = [
        line(task, name, 0, 0.8, None if name == "adkd" else 0.5) for task in of_task for name in methods
    ]
    over = {entry["method"]: entry for entry in summary(without, [], {}, plan_of(tmp_path))["over_tasks"]}
    found = [over[name]["figures"]["saliency loyalty"] for name in methods]
    assert found == [0.5, None, 0.5], "a figure that a method never has does not take it from the others"


@pytest.mark.parametrize(
    ("by", "shown"),
    [
        (-0.00033, "| -0.0003 "),
        (0.00033, "| +0.0003 "),
        (-0.04, "| -0.040 "),
        (0.0, "| 0.000 "),
        (1e-15, "| 0.000 "),
    ],
)
def test_a_small_difference_keeps_its_sign(by: float, shown: str, tmp_path: Path) -> None:
    lines = [
        line("sst2", method, seed, 0.8 + (method == "adkd") * by + seed * 0.01)
        for method in ("kd", "adkd") for seed in range(3)
    ]  # fmt: skip
    rows = bench_tables(summary(lines, [], {}, plan_of(tmp_path))).replace("\\", "").splitlines()
    assert any(row.startswith("| from kd") and shown in row for row in rows)
