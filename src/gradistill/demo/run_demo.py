"""The demonstration: does a student learn a shortcut that its teacher does not use?

A teacher is trained on clean reviews. Two students are distilled from it on the same reviews, in which a neutral
weekday agrees with the label most of the time. On the challenge split the weekday always points to another label.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Group, RenderableType
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from gradistill.auditing import Estimate, Predictions, loyalty, mean_estimate, predict_rows
from gradistill.auditing.trained_figures import trained_note
from gradistill.commands.defaults import DEFAULT_METHOD
from gradistill.commands.distill import distill
from gradistill.commands.explain import explain
from gradistill.commands.finetune import finetune
from gradistill.commands.output_folder import FolderKind, is_ours, locked_output
from gradistill.commands.run_folder import RUN, finished_run, record_of
from gradistill.commands.signal_stores import StoreChoice
from gradistill.commands.text_lengths import DEFAULT_LENGTH, trained_length
from gradistill.data import Collator, DataChoice, encode, load_splits
from gradistill.demo.corpus import Review, make_corpus, other_reviews, write_corpus
from gradistill.errors import RecipeError
from gradistill.io import read_object, write_whole
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.packaged import PACKAGED, packaged_model
from gradistill.printing import progress_bars
from gradistill.recipe import Recipe, load_recipe
from gradistill.report.audit_tables import cell
from gradistill.report.terminal import heat_map, results_table

logger = logging.getLogger(__name__)

METHODS = ("kd", DEFAULT_METHOD)
SEEN = ("teacher", *METHODS)
"""The models whose explanations are shown."""
RATE = 0.9
STUDENT_LAYERS = 3
CORPUS = {"train": 1200, "validation": 400, "test": 400}
STUDENT_EPOCHS, STUDENT_RATE = 8, 3e-4
QUICK = 10
"""The divisor of these sizes with ``quick``."""


def _is_demo(output: Path) -> bool:
    """Whether an earlier version wrote the folder: it holds ``demo.json``, or the run of the teacher."""
    try:
        return read_object(output / "demo.json").keys() >= {"seed", "shortcut_rate", "models"}
    except (OSError, ValueError):
        known = {"corpus", "teacher", "coalition", *METHODS}
        named = all(path.name in known for path in output.iterdir())
        return named and is_ours(output / "teacher", RUN)


DEMO = FolderKind("demo", _is_demo)


@dataclass(frozen=True)
class Unseen:
    """The encoded rows on which models are measured: the clean ones and the challenge."""

    tokenizer: PreTrainedTokenizerBase
    rows: Mapping[str, Any]
    reviews: Mapping[str, Sequence[Review]]


@dataclass(frozen=True)
class Figures:
    """The figures of one model: estimates over reviews with their intervals, size and speed."""

    over_reviews: Mapping[str, Estimate]
    parameters: int
    milliseconds: float
    response: Mapping[str, Any] | None = None
    """Response loyalty with its floor, from the run's validation rows; None for the teacher."""


def demo(output: Path, *, seed: int = 0, quick: bool = False) -> RenderableType:
    """Fine-tune, distil twice, measure. Returns the table, and each model's explanation of one challenge review.

    Finished runs in ``output`` are reused, and an unfinished one resumes, if seed and size are the same.
    """
    packaged_model()  # a missing extra is refused before any work
    with locked_output(output, DEMO):
        return _demo(output, seed, quick)


def _demo(output: Path, seed: int, quick: bool) -> RenderableType:
    sizes = {split: rows // (QUICK if quick else 1) for split, rows in CORPUS.items()}
    corpus = make_corpus(**sizes, seed=seed, shortcut_rate=RATE)
    clean, shortcut = output / "corpus" / "clean", output / "corpus" / "shortcut"
    written = {
        clean: {name: corpus[name] for name in ("train", "validation", "test", "challenge")},
        shortcut: {name: corpus[f"{name}_shortcut"] for name in ("train", "validation")},
    }
    for folder, splits in written.items():
        _refuse_other_reviews(splits, folder)
    for folder, splits in written.items():
        write_corpus(splits, folder)
    recipe = _recipe("finetune", seed, "training.epochs=4", "training.learning_rate=1e-4")
    logger.info(f"teacher: the packaged model, fine-tuned on clean reviews\n{'-' * 60}")
    rows = corpus_choice(clean)
    models = {
        "teacher": _once(
            output / "teacher", recipe, sizes["train"], lambda at: finetune(PACKAGED, rows, at, recipe)
        )
    }
    rows = corpus_choice(shortcut)
    for method in METHODS:
        logger.info(f"\n{method}: {STUDENT_LAYERS} layers, on reviews with the shortcut\n{'-' * 60}")
        long = (f"training.epochs={STUDENT_EPOCHS}", f"training.learning_rate={STUDENT_RATE}")
        recipe = _recipe(method, seed, *long, f"student.layers={STUDENT_LAYERS}")
        models[method] = _once(
            output / method,
            recipe,
            sizes["train"],
            lambda at, recipe=recipe: distill(
                str(models["teacher"]), rows, at, recipe, signals=StoreChoice("online")
            ),
        )
    unseen = unseen_rows(models["teacher"], clean, corpus)
    measured: dict[str, Figures] = {}
    teacher_predictions: Mapping[str, Predictions] = {}
    with progress_bars() as progress:
        for name, folder in progress.track(models.items(), description="measuring"):
            measured[name], predictions = measured_model(folder, teacher_predictions, unseen)
            teacher_predictions = teacher_predictions or predictions  # the teacher comes first
    _write(output / "demo.json", measured, seed)
    return Group(_table(measured, seed), Text(), _seen(models, unseen.reviews["challenge"][0].text))


def _refuse_other_reviews(splits: Mapping[str, Sequence[Review]], folder: Path) -> None:
    """Raise RecipeError if the folder holds other reviews, on which its models were trained."""
    other = other_reviews(splits, folder)
    if other is not None:
        raise _of_another(
            f"{other} has other reviews than this demonstration: those of another seed, of --quick, or of an earlier "
            "version."
        )


def _of_another(what: str) -> RecipeError:
    """The error for a folder of another demonstration."""
    return RecipeError(
        what, expected="a new folder, or one of the same demonstration", remedy="choose another --output"
    )


def _recipe(method: str, seed: int, *changes: str) -> Recipe:
    common = [f"training.seed={seed}", "training.batch_size=16"]
    if _has_fast_bfloat16():
        common.append("training.arguments.bf16=true")
    return load_recipe(method, changes=[*common, *changes])


def _has_fast_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16, which halves the time; others emulate it slowly."""
    if torch.accelerator.is_available():
        return False
    known = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version of torch
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def corpus_choice(folder: Path) -> DataChoice:
    return DataChoice(str(folder), label_column="label", text_columns=("text",))


def _once(folder: Path, recipe: Recipe, reviews: int, run: Callable[[Path], object]) -> Path:
    """The folder of a run of this recipe on ``reviews`` reviews: a finished one, or a new one (which refuses another
    recipe)."""
    if not finished_run(folder, recipe):
        run(folder)
    elif (trained := record_of(folder)["data"]["rows"]["train"]) != reviews:
        raise _of_another(f"{folder} was trained on {trained} reviews, and this demonstration has {reviews}.")
    return folder


def unseen_rows(teacher: Path, clean: Path, corpus: Mapping[str, Sequence[Review]]) -> Unseen:
    tokenizer = load_tokenizer(teacher)
    splits = load_splits(
        clean, splits=("train", "test", "challenge"), label_column="label", text_columns=("text",)
    )
    rows = {}
    for name in ("test", "challenge"):
        encoded = encode(
            splits.rows[name], tokenizer, splits.task, max_length=trained_length(teacher) or DEFAULT_LENGTH
        )
        rows[name] = encoded.dataset
        if encoded.truncated:
            logger.info(f"{name}: {encoded.cut}")
    return Unseen(tokenizer, rows, {name: corpus[name] for name in rows})


def measured_model(
    folder: Path, taught: Mapping[str, Predictions], unseen: Unseen
) -> tuple[Figures, Mapping[str, Predictions]]:
    """A model's figures, and its predictions by split. ``taught`` are the teacher's predictions, empty for the teacher
    itself."""
    model, _ = load_classifier(folder)
    collate = Collator(unseen.tokenizer)
    predictions = {
        split: predict_rows(model, rows, collate, labels=taught[split].labels if taught else None)
        for split, rows in unseen.rows.items()
    }
    right = {
        split: predictions[split].labels == np.asarray(rows["labels"][:])
        for split, rows in unseen.rows.items()
    }
    loyal = loyalty(predictions["test"], (taught or predictions)["test"])
    figures = {
        "accuracy": mean_estimate(right["test"]),
        "challenge accuracy": mean_estimate(right["challenge"]),
        "label loyalty": loyal.label,
        "probability loyalty": loyal.probability,
        "saliency loyalty": loyal.saliency,
        "shortcut share": mean_estimate(
            shortcut_shares(predictions["challenge"], unseen.reviews["challenge"], unseen.tokenizer),
            bounds=(0.0, 1.0),
        ),
    }
    known = {name: figure for name, figure in figures.items() if figure is not None}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    response = (record_of(folder).get("loyalty") or {}).get("response") if taught else None
    return Figures(known, parameters, _milliseconds(model, unseen, collate), response), predictions


def shortcut_shares(
    predictions: Predictions, reviews: Sequence[Review], tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """For each review, the share of the attribution on tokens that overlap the shortcut's characters."""
    shares = []
    for scores, review in zip(predictions.maps, reviews, strict=True):
        encoding: Any = tokenizer(review.text, add_special_tokens=False, return_offsets_mapping=True)
        marked = [
            any(start < stop and first < end for first, stop in review.shortcut)
            for start, end in encoding["offset_mapping"][: len(scores)]
        ]
        shares.append(scores[marked].sum() / max(scores.sum(), np.finfo(np.float32).tiny))
    return np.asarray(shares, dtype=np.float64)


def _milliseconds(model: torch.nn.Module, unseen: Unseen, collate: Collator, rows: int = 64) -> float:
    """Median wall time of a forward pass over a single text."""
    times = []
    with torch.inference_mode():
        for k in range(rows):
            batch = collate([unseen.rows["test"][k % len(unseen.rows["test"])]])
            start = perf_counter()
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            times.append(perf_counter() - start)
    return 1000 * float(np.median(times))


def _write(file: Path, measured: Mapping[str, Figures], seed: int) -> None:
    """Write the table with its intervals as JSON."""
    models = {
        name: {
            **{key: estimate.as_dict() for key, estimate in figures.over_reviews.items()},
            **({"response loyalty": dict(figures.response)} if figures.response else {}),
            "parameters": figures.parameters,
            "milliseconds": figures.milliseconds,
        }
        for name, figures in measured.items()
    }
    text = json.dumps({"seed": seed, "shortcut_rate": RATE, "models": models}, indent=2)
    write_whole(file, f"{text}\n".encode())


def _table(measured: Mapping[str, Figures], seed: int) -> RenderableType:
    heads = {
        "acc.": "accuracy", "chall.": "challenge accuracy", "label": "label loyalty", "short.": "shortcut share",
    }  # fmt: skip
    rows = [
        {
            "model": name,
            "params": f"{figures.parameters / 1e6:.1f}M",  # 80 columns are enough for these
            **{head: figures.over_reviews[key].value for head, key in heads.items()},
            "resp.": response.value if (response := cell(figures.response)) else None,
            "floor": (figures.response or {}).get("floor"),
            "ms": f"{figures.milliseconds:.1f}",
        }
        for name, figures in measured.items()
    ]
    n = measured["teacher"].over_reviews["accuracy"].n
    note = (
        f"Seed {seed}, n = {n} unseen reviews a split; 95 % intervals are in demo.json. acc. and label "
        "loyalty: clean reviews. chall.: accuracy on the same reviews with the weekday "
        f"of another label; weekday and label agreed in {RATE:.0%} of the students' training rows, and were "
        "independent in the teacher's. short.: share of the attribution (gradient × input, teacher's label) on the "
        "challenge's weekday. resp.: response loyalty on validation rows, floor: the untrained student's. ms: one "
        "text at a time."
    )
    if trained := trained_note(figures.response for figures in measured.values()):
        note += f" {trained}."
    return results_table(rows, title="gradistill demo", note=note)


def _seen(models: Mapping[str, Path], text: str) -> RenderableType:
    """One challenge review, with each model's explanation of its own prediction."""
    parts: list[RenderableType] = [
        Text("One challenge review, and the words that each prediction rests on", "bold")
    ]
    for name in SEEN:
        explanation = explain(str(models[name]), [text])
        parts += [
            Text(f"\n{name} predicts {explanation.label}"),
            heat_map(explanation.words, [text], toward=explanation.label),
        ]
    parts.append(Text(f'\nFor another text: gradistill explain --model {models[SEEN[-1]]} "a text of yours"'))
    parts.append(Text("\nNow with your own file:\n  gradistill init my_rows.csv\n  gradistill run"))
    return Group(*parts)
