"""Two shortcuts of real data: is a student as robust to them as its teacher?

    python benchmarks/real_shortcuts.py MODELS DATA [STUDENT ...]

MODELS/snli holds folders of models, or links to them: the teacher of suite_full.yaml, its students of all rows by their
methods, ``second`` for its second teacher, and ``random_head`` of separation_models.py. DATA/snli holds the rows.
Nothing is trained but a linear model of the words and word pairs of hypotheses.

Premises removed. Who wrote SNLI's hypotheses left traces of the label in them (Gururangan et al. 2018, arXiv
1803.02324). Rows whose hypothesis alone gives the label to the linear model are *easy*, the others *hard*. For each
model: accuracy on both, and accuracy when the premise is empty.

Words in common. In pairs of our own templates all words of the hypothesis are in the premise, and half of the pairs
are no entailment (the kinds of McCoy et al. 2019, HANS, arXiv 1902.01007; the templates and words are ours). A model
that goes by the overlap predicts entailment for all of them. A prediction counts as entailment or not.

For every student: the share of rows on which it predicts as its teacher does, with Wilson's 95 % interval.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, markdown, publish
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from gradistill import load_classifier, load_tokenizer
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.statistics import wilson_share
from gradistill.data.changed_copies import Copy

ENTAILMENT = 0
STUDENTS = (
    "random_head", "kd", "adkd", "minilm", "rationale", "coalition", "coalition_minilm", "coalition_rationale",
    "second",
)  # fmt: skip
PEOPLE = ("doctor", "lawyer", "artist", "judge", "student", "tourist", "author", "baker", "nurse", "farmer")
ACTS = ("saw", "thanked", "helped", "followed", "called", "advised")
DOINGS = ("danced", "slept", "waited", "laughed", "arrived", "ran")
ROWS = 60
"""Of each template."""

TEMPLATES = {
    # name: premise, hypothesis, whether it follows
    "swap": ("The {a} {v} the {b} .", "The {b} {v} the {a} .", False),
    "near": ("The {a} near the {b} {d} .", "The {b} {d} .", False),
    "object of a clause": ("The {a} that the {b} {v} {d} .", "The {b} {d} .", False),
    "condition": ("If the {a} {d} , the {b} {e} .", "The {a} {d} .", False),
    "or": ("The {a} {d} , or the {b} {e} .", "The {b} {e} .", False),
    "passive": ("The {a} was {v} by the {b} .", "The {a} {v} the {b} .", False),
    "and": ("The {a} and the {b} {d} .", "The {b} {d} .", True),
    "both": ("The {a} {d} , and the {b} {e} .", "The {b} {e} .", True),
    "subject": ("The {a} near the {b} {d} .", "The {a} {d} .", True),
    "because": ("Because the {a} {d} , the {b} {e} .", "The {a} {d} .", True),
    "whole": ("The {a} {v} the {b} .", "The {a} {v} the {b} .", True),
    "with": ("The {a} {v} the {b} and {d} .", "The {a} {d} .", True),
}
PARTICIPLES = {"saw": "seen"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("students", nargs="*", default=STUDENTS)
    given = parser.parse_args()
    models = given.models / "snli"
    rows, hard = split_by_hypothesis(given.data / "snli")
    texts = [(row["premise"], row["hypothesis"]) for row in rows]
    gold = np.array([int(row["label"]) for row in rows])
    pairs, follows = overlapping()
    found, answers = [], {}
    for name in (
        "teacher",
        *(student for student in given.students if (models / student / "config.json").is_file()),
    ):
        predict = predictor(models / name)
        own = {
            "whole": predict(texts),
            "no premise": predict([("", hypothesis) for _, hypothesis in texts]),
            "overlap": predict(pairs) == ENTAILMENT,
        }
        answers[name] = own
        figures = {
            "easy": (own["whole"] == gold)[~hard],
            "hard": (own["whole"] == gold)[hard],
            "without premise": own["no premise"] == gold,
            "follows": own["overlap"][follows],
            "does not follow": ~own["overlap"][~follows],
            "hard, as the teacher": (own["whole"] == answers["teacher"]["whole"])[hard],
            "overlap, as the teacher": own["overlap"] == answers["teacher"]["overlap"],
        }
        found.append({"model": name, **{key: rate(values) for key, values in figures.items()}})
        print(found[-1], flush=True)
    table = [{key: value if key == "model" else shown(value) for key, value in row.items()} for row in found]
    text = f"""{len(rows)} validation rows of snli, {int(hard.sum())} of them hard; {len(pairs)} pairs of
{len(TEMPLATES)} templates, half of which do not follow.

{markdown(table)}"""
    publish("real_shortcuts", text, found, command="python benchmarks/real_shortcuts.py MODELS DATA",
            page=PAGE.parent / "results" / "shortcuts.md")  # fmt: skip


def predictor(folder: Path) -> Any:
    predicting = ClassifierPredictor(load_classifier(str(folder))[0], load_tokenizer(str(folder)))
    return lambda texts: predicting.logits([Copy(pair) for pair in texts])[0].argmax(-1)


def split_by_hypothesis(folder: Path) -> tuple[list[dict[str, str]], np.ndarray]:
    """The validation rows, and which of them a linear model of hypotheses gets wrong."""
    train, rows = ([*csv.DictReader((folder / f"{name}.csv").open())] for name in ("train", "validation"))
    linear = make_pipeline(
        CountVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=r"\S+"),
        LogisticRegression(max_iter=2000, C=0.3),
    )
    linear.fit([row["hypothesis"] for row in train], [row["label"] for row in train])
    predicted = linear.predict([row["hypothesis"] for row in rows])
    return rows, predicted != np.array([row["label"] for row in rows])


def overlapping() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Pairs of the templates, and whether the hypothesis follows."""
    pick = random.Random(0)
    fillings = [*itertools.permutations(PEOPLE, 2)]
    pairs, follows = [], []
    for name, (premise, hypothesis, true) in TEMPLATES.items():
        for a, b in pick.sample(fillings, ROWS):
            d, e = pick.sample(DOINGS, 2)
            v = pick.choice(ACTS)
            first = premise.format(a=a, b=b, v=PARTICIPLES.get(v, v) if name == "passive" else v, d=d, e=e)
            pairs.append((first, hypothesis.format(a=a, b=b, v=v, d=d, e=e)))
            follows.append(true)
    return pairs, np.array(follows)


def rate(values: Sequence[bool] | np.ndarray) -> tuple[float, float, float]:
    found = wilson_share(np.asarray(values, dtype=bool))
    return found.value, found.low, found.high


def shown(figure: tuple[float, float, float]) -> str:
    value, low, high = (f"{part:.2f}".removeprefix("0") for part in figure)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
