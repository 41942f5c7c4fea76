"""What reaches the terminal: with colour, without, and with hostile text."""

from __future__ import annotations

import io
import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from gradistill.data.word_scores import WordScore
from gradistill.report.number_text import decimal, decimal_below, decimal_limit
from gradistill.report.run_summary import audit_view, run_table
from gradistill.report.terminal import AWAY, TOWARD, Explanation, heat_map, render, results_table
from hostile import with_hostile
from report.audits import audit, estimate, student


def _shown(renderable: RenderableType, *, colour: bool = False, width: int = 100) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _explanation(**changes) -> Explanation:
    text = "a dreadful film, nearly great"
    words = [
        WordScore("a", 0, 1, 0.01),
        WordScore("dreadful", 2, 10, 1.0),
        WordScore("film", 11, 15, 0.4),
        WordScore(",", 15, 16, 0.0),
        WordScore("nearly", 17, 23, 0.2),
        WordScore("great", 24, 29, -0.7),
    ]
    facts = {
        "model": "some/model", "texts": (text,), "words": words, "label": "negative",
        "probabilities": {"positive": 0.125, "negative": 0.875}, "prediction": None, "target": "log_odds",
        "method": "integrated_gradients", "residual": 0.0123,
    }  # fmt: skip
    return Explanation(**(facts | changes))


def test_without_colour_signs_show_it():
    shown = _shown(render(_explanation()))
    assert "\x1b" not in shown
    assert "a dreadful[+++] film[++], nearly[+] great[---]" in shown
    assert "some/model predicts negative" in shown
    assert re.search(r"negative +0\.875 +#{18}\s", shown)  # 0.875 of 20 rounds (half to even) to 18
    assert "miss F(E) - F(baseline) by 1.23% of it" in shown
    assert "integrated_gradients of log_odds" in shown


def test_the_strongest_words_come_first_with_sign_and_bar():
    lines = _shown(render(_explanation())).split("Strongest words")[1].splitlines()
    rows = [line.split() for line in lines if re.search(r"[+-]\d", line)]
    assert [row[:2] for row in rows] == [
        ["dreadful", "+1.000"],
        ["great", "-0.700"],
        ["film", "+0.400"],
        ["nearly", "+0.200"],
        ["a", "+0.010"],
    ]
    assert [row[2] for row in rows] == ["+" * 20, "-" * 14, "+" * 8, "+" * 4, "+"]


def test_with_colour_two_hues_and_no_brackets():
    shown = _shown(heat_map(_explanation().words, _explanation().texts), colour=True)
    assert "[++" not in shown
    assert "\x1b[1;37;48;2;31;95;174mdreadful\x1b[0m" in shown
    assert "\x1b[1;37;48;2;184;83;0mgreat\x1b[0m" in shown


def test_no_color_in_the_environment_is_heeded(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = _shown(render(_explanation()), colour=True)
    assert "dreadful[+++]" in shown
    assert "38;2;" not in shown


@pytest.mark.parametrize("style", [*TOWARD, *AWAY])
def test_shades_can_be_read_on_light_and_dark_ground(style):
    # WCAG 2 contrast, 3:1 for marked words; white text stands on its own ground.
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    (colour,) = re.findall("#[0-9a-f]{6}", style)
    grounds = ["#ffffff"] if " on " in style else ["#ffffff", "#000000"]
    assert all(contrast(colour, ground) >= 3 for ground in grounds)


def test_a_label_that_was_not_predicted_is_not_called_predicted():
    shown = _shown(render(_explanation(label="positive")))
    assert "some/model predicts negative; explained is positive" in shown
    assert "strong[+++] for positive" in shown


def test_of_several_labels_all_that_are_assigned_are_predicted():
    for assigned, head in (
        (("negative", "positive"), "predicts negative, positive; explained is negative"),
        ((), "predicts no label; explained is negative"),
        (("negative",), "predicts negative\n"),
    ):
        assert f"some/model {head}" in _shown(render(_explanation(assigned=assigned)))


def test_a_tie_is_the_explained_label():
    shown = _shown(render(_explanation(probabilities={"positive": 0.5, "negative": 0.5})))
    assert "some/model predicts negative\n" in shown


def test_regression_unsigned_and_no_residual():
    shown = _shown(
        render(_explanation(probabilities=None, prediction=3.21, residual=None, signed=False, label=""))
    )
    assert "some/model predicts 3.210" in shown
    assert "importance, for or against" in shown
    assert "Completeness" not in shown
    assert "+1.000" not in shown
    assert "for a higher prediction" in _shown(
        render(_explanation(probabilities=None, prediction=3.21, label=""))
    )


def test_pairs_are_numbered_and_what_was_not_read_is_reported():
    words = [WordScore("first", 0, 5, 1.0), WordScore("second", 0, 6, -0.5, 1)]
    shown = _shown(render(_explanation(texts=("first", "second and more"), words=words)))
    assert "Text 1\nfirst[+++]\n" in shown
    assert "Text 2\nsecond[--] ... (the rest was not read by the model)" in shown


def test_many_labels_are_cut_off():
    shown = _shown(
        render(_explanation(probabilities={f"label {k}": k / 45 for k in range(10)}, label="label 9"))
    )
    assert "and 5 more labels" in shown
    assert "label 4 " not in shown


@pytest.mark.parametrize("scale", [0.0, 5e-324, 1e-12, 1e6, 1e300])
def test_any_scale_of_scores(scale):
    words = [WordScore("a", 0, 1, scale), WordScore("b", 2, 3, -scale / 2)]
    shown = _shown(render(_explanation(texts=("a b",), words=words)))
    assert "a[+++]" in shown if scale else "a b" in shown


def test_no_words():
    assert "Strongest words" in _shown(render(_explanation(texts=("",), words=[])))


@with_hostile(colour=True)
@settings(max_examples=30)
@given(text=st.text(min_size=1, max_size=30), colour=st.booleans())
def test_hostile_text_is_neither_interpreted_nor_a_control(text, colour):
    text = "\x1b]0;own\x07\x1b[2J\x9b\r\u202e[bold red]:smile:[/bold red][/]" + text[:600]  # one line
    words = [WordScore(text, 0, len(text), 1.0)]
    explanation = _explanation(
        model=text,
        texts=(text,),
        words=words,
        label=text,
        probabilities={text: 1.0},
        target=text,
        method=text,
    )
    for renderable in (render(explanation), results_table([{text: text}], title=text, note=text)):
        shown = _shown(renderable, colour=colour, width=1_500)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", shown) if colour else shown
        assert not set(bare) & set("\x1b\x07\x9b\r\u202e\u2066")
        assert "[bold red]:smile:[/bold red][/]" in bare


def test_results_table():
    rows = [{"method": "kd", "accuracy": 0.81239, "n": 408}, {"method": "adkd", "accuracy": None, "ok": True}]
    lines = [
        line.rstrip() for line in _shown(results_table(rows, title="Results", note="one seed")).splitlines()
    ]
    assert lines[0] == "Results"
    assert lines[1].split() == ["method", "accuracy", "n", "ok"]
    assert lines[3].split() == ["kd", "0.812", "408"]
    assert lines[4].split() == ["adkd", "-", "yes"]
    assert lines[3].index("0.812") + 5 == lines[4].index(" -") + 2  # numbers end in one column
    assert lines[-1] == "one seed"


def test_results_table_knows_numpy_numbers_and_no_rows():
    shown = _shown(results_table([{"count": np.int64(5), "share": np.float32(0.5)}]))
    assert shown.split()[-2:] == ["5", "0.500"]
    assert _shown(results_table([])).strip() == ""


def test_figures_of_an_audit_fit_80_columns_with_floor_gain_and_reference():
    """The widest names and numbers that an audit has; no word and no number is broken."""
    floored = {"floor": -0.031, "gain": 0.873, "reference": estimate(0.61)}
    figures = {
        "loyalty": {name: estimate(-0.8, 1000, 0.1, **floored) for name in ("label", "response_masked")},
        "faithfulness": {"student_comprehensiveness": estimate(-0.3, 1000)},
    }
    found = audit() | {"students": [student(figures=figures)], "failed": []}
    lines = _shown(audit_view(found), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    masked = next(line for line in lines if "response_masked" in line)
    assert masked.split() == [
        "response_masked", "-0.800", "-0.900", "to", "-0.700", "1000", "-0.031", "0.873", "0.610"
    ]  # fmt: skip
    assert any("student_comprehensiveness" in line and "-0.300" in line for line in lines)


def test_differences_from_the_reference_are_a_table_that_fits_80_columns():
    apart = {"difference": estimate(-0.8, 1000, 0.1), "p": 0.0002, "p_corrected": 0.0041}
    figures = {
        "loyalty": {
            "expected_gradients": estimate(0.3) | {"reference": estimate(0.61) | apart, "trained_on": ["x"]}
        },
        "quality": {"student_accuracy": estimate(0.9)},
    }
    lines = _shown(audit_view(audit() | {"students": [student(figures=figures)]}), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    first = next(
        k for k, line in enumerate(lines) if line.startswith("student minus reference, on the same rows")
    )
    assert lines[first + 1].split()[:2] == ["figure", "difference"]
    assert lines[first + 3].split() == [
        "expected_gradients", "†", "-0.800", "-0.900", "to", "-0.700", "1000", "<", "0.001", "0.004"
    ]  # fmt: skip


def test_the_floor_of_a_run_is_another_than_that_of_an_audit() -> None:
    floored = estimate(0.8) | {"floor": 0.1, "gain": 0.778}
    run = {
        "method": "kd", "task": "reviews", "seed": 0, "student": {"name": "student"}, "eval": {"accuracy": 0.9},
        "teacher_eval": None, "loyalty": {"label": floored, "response": None}, "timing": defaultdict(float),
    }  # fmt: skip
    audited = audit() | {"students": [student(figures={"loyalty": {"label": floored}})]}
    of_run, of_audit = (" ".join(_shown(view).split()) for view in (run_table(run), audit_view(audited)))
    start, head = "floor: the student before its first step", "floor: the student with a random head"
    assert (start in of_run, head in of_run) == (True, False)
    marked = run | {"loyalty": {"label": floored | {"trained_on": ["kd"]}}}
    assert "\\n" not in _shown(run_table(marked))
    assert "†" in _shown(run_table(marked))
    assert (start in of_audit, head in of_audit) == (False, True)
    run["loyalty"] = {"label": estimate(0.8)}
    assert "floor" not in _shown(run_table(run))


def test_no_zero_is_negative() -> None:
    """A floor that is the mean of a value and its negative."""
    assert decimal(-1e-9) == "0.000"
    assert "-0.000" not in _shown(results_table([{"floor": -1e-9}]))


def test_a_value_is_seen_below_its_limit() -> None:
    shown = [decimal_below(value, limit) for value, limit in ((0.5, 0.9), (0.9996, 1.0), (0.94999999, 0.95))]
    assert shown == ["0.500", "0.9996", "0.94999999"]
    assert [decimal_below(value, limit) for value, limit in ((None, 1), (0.5, None), (1.0, 0.9))] == [
        None, "0.500", "1.000",
    ]  # fmt: skip
    assert [decimal_limit(limit) for limit in (1, 0.9504, 0.2133, None)] == [
        "1.000",
        "0.9504",
        "0.2133",
        None,
    ]
    assert decimal_below(np.nextafter(1.0, 0.0), 1.0) == "1.000000000000"  # as far as doubles are read
