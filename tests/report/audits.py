"""Sample audits and examples: a realistic one with two students, a bare one, and one full of hostile text."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from hostile import HOSTILE

TEACHER, LARGE, SMALL = "owner/reviews-base", "runs/adkd-6x384", "runs/kd-2x128"
LABELS = ("negative", "neutral", "positive")

SUBJECTS = (
    "The battery", "The hinge", "This kettle", "The sound of these headphones", "Customer service",
    "The second volume", "The zip", "Delivery", "The camera in low light", "The fabric",
)  # fmt: skip
OPINIONS = (
    ("negative", "gave up after three weeks, and nobody answered my mails. Terrible."),
    ("positive", "is excellent: quiet, quick and far better than I had any right to expect at this price 🙂"),
    ("neutral", "is fine. It does what it says, no more and no less; I would not buy it twice."),
    (
        "negative",
        "looked great on the photographs, but what arrived was scratched, dull and smelled of glue.",
    ),
    ("positive", "won't win a prize for beauty, yet I use it every single day and have never been let down."),
    ("negative", "was not bad at first. Then it broke — twice — and the refund took two months."),
)


def estimate(value: float | None, n: int = 872, spread: float = 0.021, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - spread, min(1.0, value + spread))
    return {"value": value, "low": low, "high": high, "n": n} | more


def student(name: str = LARGE, worse: float = 0.0, **changes: Any) -> dict[str, Any]:
    """One student; ``worse`` is taken from its figures."""
    return {
        "name": name, "layers": 6 if not worse else 2, "hidden": 384 if not worse else 128,
        "parameters": 22_713_600 if not worse else 4_386_178,
        "verdict": "Below one limit." if worse else "Within all limits.",
        "figures": {
            "loyalty": {
                "label": estimate(0.9346 - worse),
                "probability": estimate(0.8913 - worse),
                "saliency": estimate(0.7121 - 2 * worse, n=868, skipped=4),
                "prediction": None,
            },
            "agreement": {
                "top_k_overlap": estimate(0.681 - worse), "cosine": estimate(0.774 - worse),
                "kendall_tau": estimate(0.552 - worse),
            },
            "quality": {"teacher_accuracy": estimate(0.921), "student_accuracy": estimate(0.902 - worse)},
            "faithfulness": {
                "teacher_comprehensiveness": estimate(0.412), "student_comprehensiveness": estimate(0.388 - worse),
                "teacher_sufficiency": estimate(0.061), "student_sufficiency": estimate(0.083),
            },
            "challenge": {"negated_sentences": estimate(0.71 - worse, n=120, spread=0.07)},
        },
        "by_label": [
            {"label": label, "n": n, "figures": {
                "label": estimate(value - worse, n), "saliency": estimate(value - 0.2 - 2 * worse, n),
            }}
            for label, n, value in zip(LABELS, (401, 142, 329), (0.951, 0.842, 0.957), strict=True)
        ],
        "by_length": [
            {"label": "4–9 tokens", "n": 290, "figures": {"label": estimate(0.96 - worse, 290)}},
            {"label": "10–24 tokens", "n": 582, "figures": {"label": estimate(0.92 - worse, 582)}},
        ],
        "by_confidence": [
            {"low": low, "high": low + 0.1, "n": 60 + 80 * i, "figures": {
                "label": estimate(0.61 + 0.085 * i - worse, 60 + 80 * i, 0.12 - 0.02 * i),
                "saliency": estimate(0.47 + 0.06 * i - worse, 60 + 80 * i, 0.12 - 0.02 * i),
            }}
            for i, low in enumerate((0.5, 0.6, 0.7, 0.8, 0.9))
        ],
        "perturbations": [
            {"name": "typos", "description": "two letters of one word changed places", "n": 300,
             "figures": {"label": estimate(0.88 - worse, 300)}},
        ],
    } | changes  # fmt: skip


def calibration(name: str, shift: float) -> dict[str, Any]:
    bins = [
        {"confidence": c, "accuracy": max(0.0, c - shift), "n": 100} for c in (0.55, 0.65, 0.75, 0.85, 0.96)
    ]
    return {"name": name, "error": abs(shift), "bins": bins}


def audit(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "verdict": "One of two students is below a limit: the saliency loyalty of kd-2x128 is 0.532.",
        "failed": [{"student": SMALL, "figure": "saliency", "value": 0.532, "limit": 0.6}],
        "data": {"task": "product reviews", "split": "validation", "rows": 872, "source": "reviews.csv"},
        "attribution": {
            "method": "gradient_x_input", "title": "gradient × input",
            "description": "The gradient of the log-odds of the teacher's label at the word embeddings, times these.",
        },
        "teacher": {"name": TEACHER, "layers": 12, "hidden": 768, "parameters": 109_483_778},
        "students": [student(), student(SMALL, worse=0.09)],
        "calibration": [calibration("teacher", 0.02), calibration(LARGE, 0.04), calibration(SMALL, 0.11)],
        "comparisons": [
            {"figure": "label", "a": LARGE, "b": SMALL, "difference": estimate(0.09), "p": 0.0002,
             "p_corrected": 0.0041},
        ],
        "meanings": {
            "label": "Share of examples on which both predict the same label.",
            "saliency": "Mean Spearman correlation of the two models' word scores.",
        },
        "settings": {"seed": "13", "bootstrap samples": "2000", "examples shown": "60"},
        "versions": {"gradistill": "0.1.0", "torch": "2.13.0"},
        "seconds": {"attribution": 41.27, "perturbations": 12.04},
    } | changes  # fmt: skip


def check(figure: str, outcome: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": f"check of {figure}", "figure": figure, "value": 0.55, "limit": 0.6, "warn_limit": 0.8,
        "fail_limit": 0.6, "outcome": outcome, "reason": f"finding of {figure}", "why": f"why {figure} has a limit",
    } | changes  # fmt: skip


def assessed(outcomes: Sequence[str] = ("pass", "fail"), **changes: Any) -> dict[str, Any]:
    """An audit with a verdict, tables of labels, slices, hashes and a recipe."""
    students = [
        student(
            name,
            assessment={"outcome": outcome, "checks": [check("kappa", outcome), check("response", "pass")],
                        "notes": [f"a note on {name}"]},
            confusion=[{"teacher": t, "student": s, "n": n} for t, s, n in (
                ("negative", "negative", 40), ("negative", "neutral", 7), ("positive", "positive", 33),
            )],
            disagreements=[{"low": 0.5, "high": 0.6, "n": 8, "other": 6},
                           {"low": 0.9, "high": 1.0, "n": 72, "other": 1}],
            worst_slices=[{"by": "length", "name": "4–9 tokens", "figure": "label", **estimate(0.71, 290)}],
            by_column=[{"column": "region", "parts": [
                {"label": "north", "n": 30, "figures": {"label": estimate(0.88, 30)}}]}],
            sha256="5a" * 32, fingerprint="6b" * 32, recipe="method: kd\ntraining:\n  epochs: 3 # <b>\n",
        )
        for name, outcome in zip((LARGE, SMALL), outcomes, strict=False)
    ]  # fmt: skip
    worst = max(outcomes, key=("pass", "warn", "fail").index)
    data = {"task": "product reviews", "split": "validation", "rows": 80, "source": "reviews.csv",
            "files": [{"name": "reviews.csv", "sha256": "7c" * 32}]}  # fmt: skip
    own = {
        "outcome": worst,
        "checks": [check("overlap", "pass", fail_limit=None)],
        "notes": ["a note on all students"],
    }
    return audit(
        students=students, failed=[], data=data, assessment=own, created="2026-01-02T03:04:05+00:00",
        reason="A text must take 15 ms.", **changes,
    )  # fmt: skip


def flipped(index: int = 0) -> dict[str, Any]:
    """An example whose label two changed words turn for the teacher and the first student alone."""
    text = "A man is asleep on a bench"
    spans = [
        [0, text.index(old), text.index(old) + len(old), new]
        for old, new in (("asleep", "awake"), ("man", "dog"))
    ]
    flip = {"form": "substitution", "texts": ["A dog is awake on a bench"], "replaced": spans, "teacher": "neutral",
            "students": ["neutral", "negative"]}  # fmt: skip
    answers = [
        {"label": "negative", "confidence": 0.9, "prediction": None, "agreement": 0.6, "same_label": True,
         "disagreement": 0.2}
        for _ in range(2)
    ]  # fmt: skip
    told = {"label": "negative", "confidence": 0.97, "prediction": None}
    return example(index, [text], "negative", teacher=told, students=answers, flip=flip)


def wide() -> dict[str, Any]:
    """Three students with every column that a table can have."""
    parts = ("label", "probability", "saliency", "top_k_overlap", "response")
    row = {"n": 40, "figures": {name: estimate(-0.4, 40, 0.35) for name in parts}}
    reference = {**estimate(0.581), "difference": estimate(-0.123, 40), "p": 0.0002, "p_corrected": 0.0041}
    floored = estimate(-0.145, 40, 0.3, floor=-0.125, gain=-0.018, reference=reference)
    rows: dict[str, Any] = {
        "by_label": [{"label": label, **row} for label in LABELS],
        "by_length": [{"label": "18–26 tokens", **row}],
        "by_confidence": [{"low": 0.336, "high": 0.3412, **row}],
        "perturbations": [{"name": "neutral_prefix", "description": "a neutral sentence in front", **row}],
    }
    students = [student(f"runs/student-{k}", **rows) for k in range(3)]
    for one in students:
        one["figures"]["loyalty"] |= {"response": floored, "response_masked": floored}
    names = [one["name"] for one in students]
    compared = [
        {"figure": "student_comprehensiveness", "a": a, "b": b, "difference": estimate(-0.1, spread=0.2),
         "p": 0.0002, "p_corrected": 0.0041}
        for a, b in pairwise(names)
    ]  # fmt: skip
    return audit(students=students, failed=[], comparisons=compared)


def words(texts: Sequence[str], students: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Spans of words and punctuation with shares that sum to 1 per model."""
    spans = [
        (segment, found.start(), found.end())
        for segment, text in enumerate(texts)
        for found in re.finditer(r"[\w'’-]+|[^\w\s]+", text)
    ]
    rng = random.Random(seed)
    scores = [
        [rng.random() ** 4 * min(end - start, 9) for _, start, end in spans] for _ in range(students + 1)
    ]
    shares = [[score / (sum(column) or 1) for score in column] for column in scores]
    return [
        {"segment": segment, "start": start, "end": end, "teacher": shares[0][i],
         "students": [column[i] for column in shares[1:]]}
        for i, (segment, start, end) in enumerate(spans)
    ]  # fmt: skip


def example(
    index: int, texts: Sequence[str], gold: str | None = "positive", **changes: Any
) -> dict[str, Any]:
    """One example of two students whose kinds go round: same reasons, other reasons, other label."""
    rng = random.Random(index)
    teacher = gold if rng.random() < 0.9 else "neutral"
    answers = []
    for number in range(2):
        kind = (index + number) % 3
        agreement = round(rng.uniform(0.5, 0.95) if kind == 0 else rng.uniform(-0.3, 0.49), 3)
        label = teacher if kind < 2 else next(label for label in LABELS if label != teacher)
        answers.append({
            "label": label, "confidence": round(rng.uniform(0.45, 0.99), 3), "prediction": None,
            "agreement": agreement, "same_label": kind < 2, "disagreement": round(rng.random(), 3),
        })  # fmt: skip
    return {
        "index": index, "gold": gold, "texts": list(texts),
        "teacher": {"label": teacher, "confidence": round(rng.uniform(0.5, 0.999), 3), "prediction": None},
        "students": answers, "words": words(texts, seed=index),
    } | changes  # fmt: skip


def examples() -> list[dict[str, Any]]:
    """60 reviews; every tenth is a pair of a review and a short question."""
    found = []
    for index in range(60):
        label, opinion = OPINIONS[(index * 7) % len(OPINIONS)]
        texts = [f"{SUBJECTS[index % len(SUBJECTS)]} {opinion}"]
        if index % 4 == 1:
            texts[0] += " " + OPINIONS[(index * 5 + 1) % len(OPINIONS)][1].capitalize()
        if index % 10 == 9:
            texts.append("Would the writer buy it again?")
        found.append(example(index, texts, label))
    return found


def regression() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One student, no labels: figures, plots and filters that speak of labels have nothing to show."""
    figures = {"loyalty": {"prediction": estimate(0.93)}, "agreement": {"cosine": None}}
    bare = student(figures=figures, by_label=[], by_confidence=[], by_length=[], perturbations=[])
    answers = [
        {"label": None, "confidence": None, "prediction": 3.25, "agreement": a, "same_label": None,
         "disagreement": 1 - a}
        for a in (0.2, 0.8)
    ]  # fmt: skip
    rows = [
        example(i, ["one two", "three"], None, teacher={"label": None, "confidence": None, "prediction": 3.5},
                students=[answer], words=words(["one two", "three"], 1))
        for i, answer in enumerate(answers)
    ]  # fmt: skip
    return audit(students=[bare], failed=[], calibration=[], comparisons=[]), rows


def bare() -> dict[str, Any]:
    """As little as an audit can say."""
    return {
        "verdict": None,
        "students": [{"name": "s", "figures": {"new_group": {"a_new_figure": estimate(0.5)}}}],
    }


def hostile() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Hostile text wherever text may stand."""
    names = [HOSTILE[0], HOSTILE[10]]
    everywhere = " ".join(HOSTILE[:8])
    students = [
        student(
            name,
            verdict=text,
            by_label=[{"label": label, "n": 5, "figures": {"label": estimate(0.5, 5)}} for label in HOSTILE],
            by_length=[{"label": text, "n": 5, "figures": {text: estimate(0.5, 5)}} for text in HOSTILE],
            figures={text: {text: estimate(0.5)} for text in HOSTILE},
            assessment={
                "outcome": "fail",
                "checks": [check(t, "fail", reason=t, why=t) for t in HOSTILE],
                "notes": list(HOSTILE),
            },
            confusion=[{"teacher": t, "student": s, "n": 1} for t, s in pairwise(HOSTILE)],
            worst_slices=[{"by": t, "name": t, "figure": t, **estimate(0.5)} for t in HOSTILE],
            by_column=[
                {"column": t, "parts": [{"label": t, "n": 5, "figures": {t: estimate(0.5)}}]} for t in HOSTILE
            ],
            recipe=everywhere,
            sha256=HOSTILE[0],
            perturbations=[
                {"name": t, "description": t, "n": 5, "figures": {"x": estimate(1.0)}} for t in HOSTILE
            ],
        )
        for name, text in zip(names, HOSTILE[1:], strict=False)
    ]
    rows = [
        example(i, [text, everywhere], text, teacher={"label": text, "confidence": 0.5, "prediction": None})
        for i, text in enumerate(HOSTILE)
    ]
    for row in rows:
        for answer in row["students"]:
            answer["label"] = row["gold"]
        row["flip"] = {"texts": row["texts"], "replaced": [[0, 0, 3, row["gold"]]], "form": row["gold"],
                       "teacher": row["gold"], "students": [HOSTILE[0], HOSTILE[1]]}  # fmt: skip
    facts = {text: text for text in HOSTILE}
    content = audit(
        verdict=everywhere, students=students, meanings=facts, settings=facts, versions=facts,
        failed=[{"student": names[0], "figure": HOSTILE[1], "value": 0.5, "limit": 0.6}],
        data={"task": everywhere, "split": HOSTILE[1], "rows": 3, "source": HOSTILE[2],
              "files": [{"name": HOSTILE[0], "sha256": HOSTILE[2]}]},
        reason=everywhere, created=HOSTILE[2],
        assessment={"outcome": "fail", "checks": [check(HOSTILE[0], "fail", reason=everywhere)],
                    "notes": list(HOSTILE)},
        attribution={"method": "x", "title": HOSTILE[0], "description": everywhere},
        teacher={"name": HOSTILE[1], "layers": 1, "hidden": 1, "parameters": 1}, seconds={HOSTILE[0]: 1.0},
        calibration=[calibration(names[0], 0.1), calibration("teacher", 0.1)],
        comparisons=[{"figure": HOSTILE[1], "a": names[0], "b": HOSTILE[2], "difference": estimate(0.1), "p": 0.5}],
    )  # fmt: skip
    return content, rows


def strings(content: Any) -> list[str]:
    """Every string in nested containers, keys left out."""
    if isinstance(content, str):
        return [content]
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    return [text for part in parts for text in strings(part)]
