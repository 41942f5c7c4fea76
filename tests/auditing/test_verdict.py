"""The verdict: what passes, warns and fails, and what each line says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradistill.auditing import figure_meanings, summary
from gradistill.auditing.per_example import AGREEMENT
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.verdict import DATA_LIMITS, LIMITS, judged, unpredicted, worst

DEFAULT = {limit.figure: limit for limit in (*LIMITS, *DATA_LIMITS)}


def figure(value: float | None, low: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": None, "n": 100, **more}


def student(**changes: Any) -> dict[str, Any]:
    """One that passes every limit."""
    loyalty = {
        "kappa": figure(0.9, 0.8),
        "response": figure(0.8, 0.7, floor=0.1),
        **changes.pop("loyalty", {}),
    }
    return {
        "name": "s", "figures": {"loyalty": {k: v for k, v in loyalty.items() if v}},
        "by_label": [part("a", 0.95), part("b", 0.9)], "confusion": [pair("a", "a", 50), pair("b", "b", 50)],
    } | changes  # fmt: skip


def part(label: str, value: float, high: float = 0.97, n: int = 50) -> dict[str, Any]:
    return {"label": label, "n": n, "figures": {"label": {**figure(value), "high": high, "n": n}}}


def pair(teacher: str, student: str, n: int) -> dict[str, Any]:
    return {"teacher": teacher, "student": student, "n": n}


def checks(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["figure"]: check for check in found["assessment"]["checks"]}


def of(one: dict[str, Any], limits: dict[str, float] | None = None, **audit: Any) -> dict[str, Any]:
    return judged({"students": [one], **audit}, limits or {})["students"][0]


def test_a_student_within_all_limits_passes() -> None:
    found = judged({"students": [student(), student()]}, {})
    assert found["assessment"]["outcome"] == "pass"
    assert {c["outcome"] for s in found["students"] for c in s["assessment"]["checks"]} == {"pass"}
    assert list(checks(found["students"][0])) == ["kappa", "worst_class", "response", "unpredicted"]


@pytest.mark.parametrize(
    ("value", "low", "reason"),
    [
        (0.7996, None, "0.7996, below 0.80"),
        (0.59996, 0.5, "0.59996, below 0.60"),
        (0.9, 0.59996, "0.90, but its interval reaches 0.59996, below 0.60"),
        (0.3, 0.2, "0.30, below 0.60"),
    ],
)
def test_a_value_is_seen_below_its_limit(value: float, low: float | None, reason: str) -> None:
    found = checks(of(student(loyalty={"kappa": figure(value, low) | {"high": value}})))["kappa"]
    assert found["reason"].startswith(reason)
    assert found["outcome"] != "pass"


def test_the_audit_is_as_good_as_its_worst_student() -> None:
    bad = student(loyalty={"kappa": figure(0.3, 0.2)})
    found = judged({"students": [student(), bad, student(loyalty={"response": None})]}, {})
    assert [s["assessment"]["outcome"] for s in found["students"]] == ["pass", "fail", "warn"]
    assert found["assessment"]["outcome"] == "fail"
    assert worst([]) == "pass"


@pytest.mark.parametrize(
    ("value", "low", "outcome", "reason"),
    [
        (0.80, 0.60, "pass", "0.80"),
        (0.79, 0.70, "warn", "0.79, below 0.80"),
        (0.85, 0.55, "warn", "0.85, but its interval reaches 0.55, below 0.60"),
        (0.59, 0.50, "fail", "0.59, below 0.60"),
        (None, None, "warn", "not defined on these rows"),
    ],
)
def test_a_value_and_its_interval_are_compared(
    value: float | None, low: float | None, outcome: str, reason: str
) -> None:
    check = checks(of(student(loyalty={"kappa": figure(value, low)})))["kappa"]
    assert (check["outcome"], check["reason"], check["why"]) == (outcome, reason, DEFAULT["kappa"].reason)
    assert (check["value"], check["warn_limit"], check["fail_limit"]) == (value, 0.8, 0.6)


@pytest.mark.parametrize(
    ("n", "high", "outcome", "reason"),
    [
        (30, 0.6, "warn", "0.40, below 0.50, but its interval reaches 0.60"),
        (30, 0.49, "fail", "0.40, below 0.50"),
        (30, None, "fail", "0.40, below 0.50"),
        (5, 0.8, "warn", "0.40, below 0.50, but its interval reaches 0.80, on 5 examples only"),
        (5, 0.45, "fail", "0.40, below 0.50"),
        (1, None, "warn", "0.40, below 0.50, on 1 examples only"),
    ],
)
def test_a_figure_fails_only_where_its_whole_interval_is_below(
    n: int, high: float | None, outcome: str, reason: str
) -> None:
    flips = {"value": 0.4, "low": None if high is None else 0.1, "high": high, "n": n}
    check = checks(of(student(loyalty={"flips": flips})))["flips"]
    assert (check["outcome"], check["reason"]) == (outcome, reason)


def test_response_is_judged_by_its_gain_over_the_floor() -> None:
    """0.75 looks enough until one knows that a random head reaches 0.4."""
    limit = DEFAULT["response"]
    high_floor = of(student(loyalty={"response": figure(0.75, 0.7, floor=0.4)}))
    assert checks(high_floor)["response"]["outcome"] == "warn"
    assert checks(high_floor)["response"]["limit"] == limit.warn
    judged = checks(high_floor)["response"]
    assert (judged["value"], judged["compared"]) == (0.75, pytest.approx(0.35 / 0.6))
    assert checks(of(student(loyalty={"response": figure(0.75, 0.7)})))["response"]["outcome"] == "pass"
    nothing_left = checks(of(student(loyalty={"response": figure(0.5, 0.4, floor=1.0)})))["response"]
    assert (nothing_left["outcome"], nothing_left["reason"]) == ("warn", "not defined on these rows")
    missing = checks(of(student(loyalty={"response": None})))["response"]
    assert (missing["outcome"], missing["reason"]) == ("warn", "not measured")


OF_COPIES = {"trained_on": ["coalition_matching"]}


@pytest.mark.parametrize(
    ("expected", "outcome", "reason"),
    [
        (figure(0.2, 0.1, floor=0.02), "pass", "0.20, from 0.10: above 0.02"),
        (figure(0.2, 0.1), "pass", "0.20, from 0.10: above 0.00"),
        (figure(0.2, 0.001), "pass", "0.20, from 0.001: above 0.000"),
        (figure(0.2, 0.1, floor=0.15), "warn", "0.20, from 0.10: not above 0.15"),
        (figure(0.1, -0.002), "warn", "0.10, from -0.002: not above 0.000"),
        (figure(0.1, -0.0, floor=0.0), "warn", "0.10, from 0.00: not above 0.00"),
        (figure(-0.1, -0.15, floor=-0.3), "warn", "-0.10, from -0.15: not above 0.00"),
        (figure(0.9, 0.8, floor=1.0), "warn", "0.90, from 0.80: not above 1.00"),
        (figure(0.9, 0.8, trained_on=["rationale"]), "warn",
         "were trained on too; --attribution selects another method"),
        (figure(None), "warn", "have no value on these rows"),
        (figure(0.3, n=1), "warn", "have no interval on these rows"),
        (None, "warn", "have no value with these tokenizers, or on these rows"),
    ],
)  # fmt: skip
def test_a_response_that_a_student_was_trained_on_needs_an_independent_figure(
    expected: dict[str, Any] | None, outcome: str, reason: str
) -> None:
    response = figure(0.8, 0.7, floor=0.1, **OF_COPIES)
    loyalty = {"response": response, "saliency": figure(0.8, 0.7), "expected_gradients": expected}
    found = of(student(loyalty=loyalty))
    check = checks(found)["expected_gradients"]
    assert (check["outcome"], check["reason"]) == (outcome, f"expected gradients {reason}")
    assert found["assessment"]["outcome"] == outcome


@pytest.mark.parametrize("missing", [None, figure(0.9, 0.8, trained_on=["attribution_map"])])
def test_signed_attributions_stand_in_for_expected_gradients_that_were_trained_on_or_left_out(
    missing: dict[str, Any] | None,
) -> None:
    response = figure(0.8, 0.7, floor=0.1, **OF_COPIES)
    loyalty = {"response": response, "expected_gradients": missing, "signed": figure(0.2, 0.1)}
    check = checks(of(student(loyalty=loyalty)))["signed"]
    assert (check["outcome"], check["reason"]) == ("pass", "signed attributions 0.20, from 0.10: above 0.00")


@pytest.mark.parametrize("asked", [0, 30])
def test_a_student_without_attributions_whose_response_was_trained_on_is_not_passed(asked: int) -> None:
    """An ONNX model has no gradients, and is what ships."""
    response = figure(0.8, 0.7, floor=0.1, **OF_COPIES)
    one = student(loyalty={"response": response})
    check = checks(of(one, settings={"rows for expected gradients": asked}))["expected_gradients"]
    assert check["outcome"] == "warn"
    assert check["reason"].endswith("has no attributions; audit the folder that it was exported from")


def test_an_independent_figure_is_asked_for_only_where_the_response_was_trained_on() -> None:
    loyalty = {"signed": figure(0.0, -0.1), "expected_gradients": figure(0.0, -0.1)}
    assert not checks(of(student(loyalty=loyalty))).keys() & {"expected_gradients", "signed"}


def test_a_class_is_judged_by_the_upper_end_of_its_interval_and_from_20_rows_on() -> None:
    """The worst of many classes is low by chance."""
    one = student(by_label=[part("a", 0.7, high=0.85), part("b", 0.1, high=0.4, n=19)])
    lucky = of(one)
    assert checks(lucky)["worst_class"]["outcome"] == "pass"
    assert lucky["assessment"]["notes"] == []
    of_all = judged({"students": [one, one]}, {})["assessment"]["notes"]
    assert of_all == ["with fewer than 20 rows not judged as the worst class: 'b' (19)"]
    bad = checks(of(student(by_label=[part("a", 0.95), part("b", 0.3, high=0.45)])))["worst_class"]
    assert (bad["outcome"], bad["value"]) == ("fail", 0.3)
    assert "class 'b'" in bad["reason"]


def test_of_two_bad_classes_the_surely_bad_one_is_judged() -> None:
    """The other one has the lower value, and few rows."""
    few, many = part("few", 0.40, high=0.61, n=20), part("many", 0.42, high=0.46, n=500)
    for order in ([few, many], [many, few]):
        found = checks(of(student(by_label=order)))["worst_class"]
        assert (found["outcome"], "'many'" in found["reason"]) == ("fail", True)


def test_the_worst_part_of_a_column_is_judged() -> None:
    column = {"column": "region", "parts": [part("north", 0.9), part("south", 0.3, high=0.45)]}
    found = checks(of(student(by_column=[column])))["worst_slice"]
    assert found["outcome"] == "fail"
    assert "region 'south'" in found["reason"]


def test_a_class_that_only_the_teacher_predicts_has_a_line() -> None:
    pairs = [pair("a", "a", 50), pair("b", "a", 3), pair("b", "c", 2), pair("a", "c", 1)]
    assert unpredicted(pairs) == {"b": 5}
    found = checks(of(student(confusion=pairs)))["unpredicted"]
    assert (found["outcome"], found["value"]) == ("warn", 1)
    assert "'b' (5 by the teacher)" in found["reason"]


def test_figures_at_their_floor_have_a_line() -> None:
    loyalty = {"saliency": figure(0.72, 0.69, floor=0.7), "flips": figure(0.8, 0.75, floor=0.2)}
    found = of(student(loyalty=loyalty))
    assert found["assessment"]["notes"] == [
        "within its interval of the floor, as a student with a random head would be: saliency loyalty"
    ]
    assert found["assessment"]["outcome"] == "pass", "the figure says nothing, for or against"


@pytest.mark.parametrize(
    ("recipe", "noted"),
    [("method: kd", True), ("training: {average_weights: 0.3}", False), (None, False)],
)
def test_a_note_where_the_audited_rows_selected_the_student(recipe: str | None, noted: bool) -> None:
    audit = {"students": [student(recipe=recipe)], "data": {"split": "validation", "rows": 100}}
    notes = judged(audit, {})["assessment"]["notes"]
    assert any("chose the best epoch" in note for note in notes) is noted
    notes = judged(audit | {"data": {"split": "test", "rows": 100}}, {})["assessment"]["notes"]
    assert not any("chose the best epoch" in note for note in notes)


def test_data_have_limits_of_their_own() -> None:
    data = {"split": "test", "rows": 100}
    texts = {
        "max_length": 64,
        "test": {"cut": 6, "rows": 100, "longest": 90},
        "challenge": {"cut": 0, "rows": 9},
    }
    found = judged(
        {"students": [student()], "data": data, "texts": texts, "overlap": {"rows": 100, "normalised": 5},
         "doubts": ["the teacher is no better than a constant prediction: …"]}, {}
    )  # fmt: skip
    outcomes = {name: check["outcome"] for name, check in checks(found).items()}
    assert outcomes == {"overlap": "pass", "cut": "warn", "teacher": "warn"}
    assert found["assessment"]["outcome"] == "warn"
    assert checks(found)["cut"]["value"] == pytest.approx(0.06)


def test_limits_of_the_user_are_checks_too() -> None:
    found = of(student(), {"kappa": 0.95, "response": 0.5, "cosine": 0.1})
    own = [c for c in found["assessment"]["checks"] if c["name"].endswith("(--fail-under)")]
    assert [(c["figure"], c["outcome"], c["reason"]) for c in own] == [
        ("kappa", "fail", "0.90, below 0.95"), ("response", "pass", "0.80"), ("cosine", "fail", "not measured"),
    ]  # fmt: skip
    assert found["assessment"]["outcome"] == "fail"


def test_a_limit_of_the_user_has_the_title_that_the_figure_has_in_tables() -> None:
    found = of(student(), {"expected_gradients": 0.5})
    assert [c["name"] for c in found["assessment"]["checks"]][-1] == "expected gradients (--fail-under)"


def test_a_note_names_where_a_student_is_nearer_and_farther_than_the_reference() -> None:
    def compared(value: float, p: float, n: int = 20, **interval: float) -> dict[str, Any]:
        return {"reference": {"difference": {"value": value, "n": n, **interval}, "p_corrected": p}}

    loyalty = {
        "response": figure(0.8, 0.7, floor=0.1, trained_on=["x"]) | compared(0.061, 0.0499),
        "label": figure(0.5, 0.4) | compared(-0.04, 0.05, low=-0.1, high=0.021),
        "kappa": figure(0.9, 0.8) | compared(0.01, 0.2, low=-0.0, high=1e-17),
        "expected_gradients": figure(0.5, 0.4) | compared(-0.15, 0.001),
        "probability": figure(0.5, 0.4) | compared(-0.00071, 0.001),
        "saliency": figure(0.5, 0.4) | compared(-0.2, 0.001, n=19),
    }
    assert of(student(loyalty=loyalty))["assessment"]["reference"] == (
        "agreement with the teacher, compared with the reference's on the same rows (p < 0.05, corrected): more in "
        "response loyalty † (+0.06); less in expected gradients (-0.15), probability loyalty (-0.001); without a "
        "clear difference (intervals before correction) in label agreement beyond chance (κ) (0.00 to 0.00), label "
        "loyalty (-0.10 to +0.02)"
    )
    assert "reference" not in of(student())["assessment"]


def test_a_regression_is_judged_by_correlation() -> None:
    loyalty = {"kappa": None, "prediction": figure(0.95, 0.9)}
    found = of(student(loyalty=loyalty, by_label=[], confusion=[]))
    assert list(checks(found)) == ["prediction", "response"]
    assert found["assessment"]["outcome"] == "pass"


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (None, "no expected gradients; set --expected-gradients-rows"),
        (
            figure(0.1, -0.1),
            "signed attributions 0.10, from -0.10: not above 0.00; set --expected-gradients-rows",
        ),
        (figure(0.2, 0.1), "signed attributions 0.20, from 0.10: above 0.00"),
    ],
)
def test_expected_gradients_that_were_left_out_are_asked_for(
    signed: dict[str, Any] | None, reason: str
) -> None:
    response = figure(0.8, 0.7, floor=0.1, **OF_COPIES)
    one = student(loyalty={"response": response, "saliency": figure(0.8, 0.7), "signed": signed})
    found = checks(of(one, settings={"rows for expected gradients": 0}))
    assert [check["reason"] for name, check in found.items() if name in ("expected_gradients", "signed")] == [
        reason
    ]


def test_every_figure_of_agreement_has_a_meaning() -> None:
    assert {*AGREEMENT} <= {*figure_meanings.MEANINGS, *figure_meanings.OF_WORDS}


def test_no_spans_on_either_side_have_no_f1() -> None:
    figures = {"label": Estimate(1.0, 0.9, 1.0, 9), "span": Estimate(math.nan, None, None, 9)}
    assert "predicts no spans, and nor does the teacher" in summary._verdict(figures, {})


def test_a_sentence_has_an_interval_below_0_without_a_dash_before_its_minus() -> None:
    figures = {"response": Estimate(-0.001, -0.1, 0.09, 9), "expected_gradients": Estimate(0.5, 0.4, 0.6, 9)}
    sentence = summary._verdict(figures, {})
    assert sentence == (
        "reacts to changed words as its teacher with r = 0.00 (-0.10 to 0.09), and attributes its predictions to "
        "words as its teacher with ρ = 0.50 (0.40–0.60)"
    )
    assert "ρ" not in summary._verdict(figures, {"expected_gradients": ["attribution_map"]})


def test_an_audit_without_figures_has_a_verdict() -> None:
    assert judged({}, {})["assessment"] == {"outcome": "pass", "checks": [], "notes": []}
    assert of({"name": "s", "figures": {"loyalty": {"kappa": None}}})["assessment"]["outcome"] == "warn"
