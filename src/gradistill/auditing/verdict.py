"""The verdict of an audit: pass, warn or fail, from its figures and limits.

``LIMITS`` determine the outcome that is shown, not the exit code. The exit code follows from a user's limits
(``--fail-under``), which are checked here as well. Each limit is justified in docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.per_example import CHALLENGE, without_groups
from gradistill.auditing.slices import MIN_ROWS, ranked
from gradistill.auditing.trained_figures import DAGGER, TRAINED_ON
from gradistill.printing import places_below, places_shown
from gradistill.recipe.checkpoint_choice import keeps_best

PASS, WARN, FAIL = "pass", "warn", "fail"
OUTCOMES = (PASS, WARN, FAIL)
"""The outcomes, from the best to the worst."""


@dataclass(frozen=True)
class Limit:
    """The limits of a figure below which it warns and fails. With ``fail=None`` it never fails.

    ``part`` is the part of the figure that is compared. ``more``: larger values are better; otherwise the limits are
    upper limits. ``required``: the figure warns if it was not measured.
    """

    figure: str
    title: str
    warn: float
    fail: float | None
    reason: str
    part: str = "value"
    more: bool = True
    required: bool = False


LIMITS = (
    Limit("kappa", "label agreement beyond chance (kappa)", 0.80, 0.60,
          "above 0.80 is almost perfect agreement, to 0.60 no more than moderate (Landis and Koch 1977)",
          required=True),
    Limit("span", "agreement on spans (F1)", 0.80, 0.60,
          "where most words are in no span, kappa tends to F1 (Hripcsak and Rothschild 2005), so its limits apply",
          required=True),
    Limit("prediction", "correlation of the predictions", 0.90, 0.70,
          "below r = 0.7 the teacher explains less than half of the variance of the student", required=True),
    Limit("worst_class", "agreement on the worst class", 0.80, 0.50,
          "below 0.50 the student contradicts its teacher on a class more often than it follows", part="high"),
    Limit("worst_slice", "agreement on the worst part of a column", 0.80, 0.50,
          "the same as for a class", part="high"),
    Limit("response", "response loyalty above its floor", 0.70, 0.50,
          "on six of seven tasks students that were never trained reach 0.1 to 0.6; teachers trained again reach 0.77 "
          "to 0.93 on all seven",
          part="gain", required=True),
    Limit("flips", "flip agreement", 0.70, 0.50,
          "below 0.50 most edits that change the teacher's label do not change the student's"),
    Limit("kept", "labels kept when unimportant words change", 0.80, 0.50,
          "a student whose label changes under any edit would reach full flip agreement"),
    Limit("unpredicted", "classes that only the teacher predicts", 0.0, None,
          "the student cannot replace the teacher on a class that it never predicts", more=False),
)  # fmt: skip
"""The default limits of a student, in the order in which they are shown."""

ROWS_ASKED = "rows for expected gradients"
"""The setting of an audit with the number of rows on which expected gradients are measured."""

INDEPENDENT = ("expected_gradients", "signed")
"""Figures of signed attributions. If a student was trained on response loyalty, the first of these that it was not
trained on is checked."""

SIGNIFICANT = 0.05
"""Differences from the reference are reported as clear below this p-value, corrected for all comparisons."""

DATA_LIMITS = (
    Limit("overlap", "share of rows that are training rows", 0.05, None,
          "a few known rows hardly move a figure; with more it measures memory", more=False),
    Limit("cut", "share of texts that are cut", 0.05, None,
          "both models read only a part of a cut text, and annotators read all of it", more=False),
)  # fmt: skip
"""The default limits of the data, which apply to every student."""


def judged(audit: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """The audit with an ``assessment``, and one for each student: outcome, checks and notes.

    Parameters:
        ``audit``: the content of ``audit.json``. Missing figures are not checked; missing required figures warn.
        ``limits``: a user's lower limits (``--fail-under``), by figure.

    The audit's own checks are of its data. Its outcome is the worst of these checks and of its students' outcomes.

    Example: ``judged(audit, {})["assessment"]["outcome"]``
    """
    measured = (audit.get("settings") or {}).get(ROWS_ASKED) != 0
    students = [{**s, "assessment": _of_student(s, limits, measured)} for s in audit.get("students") or []]
    checks = _data_checks(audit)
    outcome = worst([*checks, *(student["assessment"] for student in students)])
    assessment = {
        "outcome": outcome,
        "checks": checks,
        "notes": [*_chosen_by(audit), *_small_classes(students)],
    }
    return {**audit, "assessment": assessment, "students": students}


def worst(parts: Sequence[Mapping[str, Any]]) -> str:
    """The worst of the parts' outcomes.

    Example: ``worst([{"outcome": "pass"}, {"outcome": "warn"}])``
    """
    return max((str(part["outcome"]) for part in parts), key=OUTCOMES.index, default=PASS)


def reference_comparisons(student: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The differences of a student of ``audit.json`` from the reference, in the form of the audit's ``comparisons``.
    Entries that do not have the form of a figure are left out.

    Example: ``[entry["p_corrected"] for entry in reference_comparisons(audit["students"][0])]``
    """
    groups = student.get("figures")
    groups = groups if isinstance(groups, Mapping) else {}
    parts = [part for name, part in groups.items() if name != CHALLENGE and isinstance(part, Mapping)]
    comparisons = []
    for name, figure in (entry for part in parts for entry in part.items() if isinstance(entry[1], Mapping)):
        reference = figure.get("reference")
        difference = reference.get("difference") if isinstance(reference, Mapping) else None
        if isinstance(reference, Mapping) and isinstance(difference, Mapping):
            marks = {TRAINED_ON: figure[TRAINED_ON]} if figure.get(TRAINED_ON) else {}
            p_values = {key: reference.get(key) for key in ("p", "p_corrected")}
            sides = {"a": student.get("name"), "b": "the reference"}
            comparisons.append({"figure": name, **sides, "difference": {**difference, **marks}, **p_values})
    return comparisons


def _of_student(student: Mapping[str, Any], limits: Mapping[str, float], asked: bool) -> dict[str, Any]:
    figures = {
        n: f for n, f in without_groups(student.get("figures") or {}).items() if isinstance(f, Mapping)
    }
    measured = figures | _derived(student)
    if "span" in figures:
        other = ("kappa", "prediction", "response")
    else:
        other = ("span", "kappa" if "prediction" in figures else "prediction")
    checks = [
        check
        for limit in LIMITS
        if limit.figure not in other
        for check in [_checked(limit, measured.get(limit.figure))]
        if check
    ]
    checks += _independent(figures, asked)
    checks += [_own_limit(name, figures.get(name), limit) for name, limit in limits.items()]
    assessment = {"outcome": worst(checks), "checks": checks, "notes": _notes(figures)}
    note = _compared_with_reference(student)
    return assessment | ({"reference": note} if note else {})


def _derived(student: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Figures that are checked and follow from several others of a student."""
    derived: dict[str, Mapping[str, Any]] = {}
    columns = [(c["column"], part) for c in student.get("by_column") or [] for part in c["parts"]]
    classes = [("class", part) for part in student.get("by_label") or []]
    for name, parts in (("worst_class", classes), ("worst_slice", columns)):
        entries = [entry for by, part in parts if (entry := ranked(by, part))]
        if entries:
            entry = min(entries, key=_upper_end)
            derived[name] = {**entry, "about": f"{entry['by']} {entry['name']!r}"}
    missing = unpredicted(student.get("confusion") or [])
    if student.get("confusion"):
        named = ", ".join(f"{name!r} ({n} by the teacher)" for name, n in missing.items())
        derived["unpredicted"] = {"value": len(missing), "about": named}
    return derived


def _independent(figures: Mapping[str, Mapping[str, Any]], asked: bool) -> list[dict[str, Any]]:
    """The check of a student that was trained on response loyalty: do its signed attributions agree with the teacher's
    more than under random heads? It warns if a student has no attributions, such as an ONNX model. ``asked``: whether
    the audit measures expected gradients."""
    known = [name for name in INDEPENDENT if name in figures]
    if not figures.get("response", {}).get(TRAINED_ON):
        return []
    has_attributions = bool(known) or "saliency" in figures
    name = next((name for name in known if not figures[name].get(TRAINED_ON)), (*known, INDEPENDENT[0])[0])
    figure, title = figures.get(name, {}), title_of(name)
    value, low, trained = figure.get("value"), figure.get("low"), figure.get(TRAINED_ON)
    least = max(0.0, figure.get("floor") or 0.0)
    passes = low is not None and low > least and not trained
    if not has_attributions:
        reason = f"no {title}: this student has no attributions; audit the folder that it was exported from"
    elif not known:
        reason = f"{title} have no value with these tokenizers, or on these rows" if asked else f"no {title}"
    elif trained:
        reason = f"{title} were trained on too; --attribution selects another method"
    elif value is None or low is None:
        reason = f"{title} have no {'value' if value is None else 'interval'} on these rows"
    else:
        places = next((n for n in range(2, 12) if low == least or round(low, n) != round(least, n)), 12)
        above = "above" if passes else "not above"
        reason = f"{title} {_number(value)}, from {low:z.{places}f}: {above} {least:z.{places}f}"
    if not passes and not asked and has_attributions:
        reason += "; set --expected-gradients-rows"
    why = "what a student was trained on proves little alone; under random heads these have a mean of about 0"
    return [
        _check(
            "reasons by a figure that it was not trained on", name, PASS if passes else WARN, reason,
            value=value, limit=least, why=why,
        )
    ]  # fmt: skip


def _check(name: str, figure: str, outcome: str, reason: str, **more: Any) -> dict[str, Any]:
    """A check that is not in ``LIMITS``. ``more`` has its value and limits, if any."""
    none = dict.fromkeys(("value", "limit", "warn_limit", "fail_limit"))
    return {"name": name, "figure": figure, **none, "outcome": outcome, "reason": reason} | more


def _upper_end(entry: Mapping[str, Any]) -> float:
    """The upper end of its interval, which ranks classes and slices: a large one can be surely bad where a small one is
    only perhaps bad."""
    return entry["value"] if entry.get("high") is None else entry["high"]


def unpredicted(pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The labels that the student never predicts, each with the number of the teacher's predictions.

    Example: ``unpredicted([{"teacher": "a", "student": "b", "n": 2}])``
    """
    predicted = {pair["student"] for pair in pairs}
    counts: dict[str, int] = {}
    for pair in pairs:
        if pair["teacher"] not in predicted:
            counts[pair["teacher"]] = counts.get(pair["teacher"], 0) + pair["n"]
    return counts


def _checked(limit: Limit, figure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The check of a figure against its limit; None if a figure that is not required has no value."""
    value, low, high = _compared(limit, figure or {})
    shared = {"name": limit.title, "figure": limit.figure, "warn_limit": limit.warn, "fail_limit": limit.fail,
              "why": limit.reason, "compared": value}  # fmt: skip
    if value is None or figure is None:
        if not limit.required:
            return None
        reason = "not measured" if figure is None else "not defined on these rows"
        return shared | {"value": None, "limit": limit.warn, "outcome": WARN, "reason": reason}
    sign = 1 if limit.more else -1
    few = (figure.get("n") or MIN_ROWS) < MIN_ROWS
    under = limit.fail is not None and sign * value < sign * limit.fail
    may_be_above = few if high is None else limit.fail is not None and high >= limit.fail
    failed = under and not may_be_above
    unsure = limit.fail is not None and low is not None and low < limit.fail
    warned = sign * value < sign * limit.warn
    outcome = FAIL if failed else WARN if warned or unsure else PASS
    beyond = "below" if limit.more else "above"
    decisive = limit.fail if failed or (unsure and not warned) else limit.warn
    gain = "value without a floor " if figure.get("floor") is None else "gain "
    part = {"gain": gain, "high": "upper end of its interval "}.get(limit.part, "")
    against = limit.fail if under else decisive
    text = f"{part}{_beside(value, against, sign)}"
    if unsure and not warned:
        text += f", but its interval reaches {_beside(low, decisive)}, below {_number(decisive)}"
    elif outcome != PASS:
        text += f", {beyond} {_number(against)}"
    if under and not failed and high is not None:
        text += f", but its interval reaches {_number(high)}"
    if few and outcome == WARN:
        text += f", on {figure['n']} examples only"
    text += _trained_on(figure)
    reason = f"{text}; {figure['about']}" if figure.get("about") else text
    return shared | {"value": figure.get("value"), "limit": decisive, "outcome": outcome, "reason": reason}


def _trained_on(figure: Mapping[str, Any]) -> str:
    return f" ({DAGGER} trained on what this measures)" if figure.get(TRAINED_ON) else ""


def _compared(
    limit: Limit, figure: Mapping[str, Any]
) -> tuple[float | int | None, float | None, float | None]:
    """The value that is compared with the limits, and the ends of its interval."""
    value, low, high = figure.get("value"), figure.get("low"), figure.get("high")
    if limit.part == "high":
        return (None if value is None else _upper_end(figure)), None, None
    floor = figure.get("floor")
    if limit.part == "gain" and floor is not None and floor >= 1:
        return None, None, None  # nothing is left to gain
    if limit.part == "gain" and floor is not None:
        value, low, high = (None if x is None else (x - floor) / (1 - floor) for x in (value, low, high))
    return value, low, high


def _own_limit(name: str, figure: Mapping[str, Any] | None, limit: float) -> dict[str, Any]:
    value = (figure or {}).get("value")
    outcome = FAIL if value is None or value < limit else PASS
    shown = _beside(value, limit)
    below = f", below {limit:g}" * (outcome == FAIL)
    reason = "not measured" if value is None else shown + below + _trained_on(figure or {})
    limits = {"limit": limit, "fail_limit": limit}
    return _check(f"{title_of(name)} (--fail-under)", name, outcome, reason, value=value, **limits)


def _signed(value: float) -> str:
    """A number with its sign: two decimals, or more until one is not 0. Rounding errors are shown as 0.00."""
    places = places_shown(value, 2)
    return "0.00" if places is None else f"{value:+.{places}f}"


def _beside(value: float | None, limit: float | None, sign: int = 1) -> str:
    """A value with enough decimals to show that it is below the limit (above, if ``sign`` is -1)."""
    places = 2 if value is None or limit is None else places_below(sign * value, sign * limit, 2)
    return _number(value) if places == 2 else f"{value:.{places}f}"


def _number(value: float | int | None) -> str:
    return "none" if value is None else f"{value:z.2f}" if value % 1 else f"{value:.0f}"


def _chosen_by(audit: Mapping[str, Any]) -> list[str]:
    """A note if the audited rows selected a model: training kept its best epoch on the validation split."""
    recipes = [s.get("recipe") for s in audit.get("students") or [] if isinstance(s, Mapping)]
    if not any(map(keeps_best, recipes)) or (audit.get("data") or {}).get("split") != "validation":
        return []
    return [
        "training chose the best epoch on the validation split: figures on it are slightly too good, "
        "figures on a test split are not"
    ]


def _small_classes(students: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note on classes with too few rows to be judged; the rows are the same for all students."""
    small = {
        f"{part['label']!r} ({part['n']})": None
        for student in students
        for part in student.get("by_label") or []
        if 0 < (part.get("n") or 0) < MIN_ROWS
    }
    few = f"with fewer than {MIN_ROWS} rows not judged as the worst class: {_listed([*small])}"
    return [few] if small else []


def _notes(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Notes on figures that have no limits: trained on, and not above the floor."""
    at_floor = [title_of(name) for name, figure in figures.items() if _reaches_floor(figure)]
    notes = []
    by_objective: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if figure.get(TRAINED_ON):
            by_objective.setdefault(" and ".join(figure[TRAINED_ON]), []).append(title_of(name))
    for objectives, titles in by_objective.items():
        notes.append(f"{DAGGER}: {objectives} trained it on what these figures measure: {'; '.join(titles)}")
    if at_floor:
        notes.append(
            f"within its interval of the floor, as a student with a random head would be: {_listed(at_floor)}"
        )
    return notes


def _compared_with_reference(student: Mapping[str, Any]) -> str | None:
    """A note on the figures in which the student agrees with the teacher more, or less, than the reference does.

    Without a clear difference the interval is shown, as few rows cannot prove that there is none. Figures with fewer
    than ``MIN_ROWS`` examples are left out. None without a reference.
    """
    more, less, neither = [], [], []
    for entry in reference_comparisons(student):
        difference, p = entry["difference"], entry["p_corrected"]
        if p is None or (difference.get("n") or 0) < MIN_ROWS:
            continue
        title = f"{title_of(entry['figure'])}{f' {DAGGER}' * bool(difference.get(TRAINED_ON))}"
        if p >= SIGNIFICANT:
            neither.append(f"{title}{_range(difference)}")
        else:
            (more if difference["value"] > 0 else less).append(f"{title} ({_signed(difference['value'])})")
    parts = [
        f"{how} {_listed(names)}"
        for how, names in (
            ("more in", more),
            ("less in", less),
            ("without a clear difference (intervals before correction) in", neither),
        )
        if names
    ]
    how = f"compared with the reference's on the same rows (p < {SIGNIFICANT:g}, corrected)"
    return f"agreement with the teacher, {how}: {'; '.join(parts)}" if parts else None


def _range(figure: Mapping[str, Any]) -> str:
    low, high = figure.get("low"), figure.get("high")
    return "" if low is None or high is None else f" ({_signed(low)} to {_signed(high)})"


def _reaches_floor(figure: Mapping[str, Any]) -> bool:
    value, floor = figure.get("value"), figure.get("floor")
    if value is None or floor is None:
        return False
    low = figure.get("low")
    return (value if low is None else low) <= floor


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _data_checks(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    overlap, data = audit.get("overlap") or {}, audit.get("data") or {}
    texts = (audit.get("texts") or {}).get(data.get("split"))
    measured: dict[str, Mapping[str, Any]] = {}
    if overlap.get("rows"):
        measured["overlap"] = {"value": overlap["normalised"] / overlap["rows"]}
    if isinstance(texts, Mapping) and texts.get("rows"):
        measured["cut"] = {"value": texts["cut"] / texts["rows"]}
    checks = [check for limit in DATA_LIMITS if (check := _checked(limit, measured.get(limit.figure)))]
    doubts = audit.get("doubts") or []
    return [
        *checks,
        *(_check("teacher against a constant prediction", "teacher", WARN, doubt) for doubt in doubts),
    ]
