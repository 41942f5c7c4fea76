"""Search values of a recipe's fields for a task: many short distillations, of which the best is kept.

Optuna chooses the trials (tree-structured Parzen estimator; Watanabe 2023, arXiv:2304.11127) and keeps them in an
SQLite file in the folder. Each trial is a run in a folder named by its values. A resumed search first evaluates the
values of killed trials, and their runs resume.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from transformers import TrainerCallback

from gradistill.auditing.trained_figures import TRAINED_ON, trained_figures, trained_on_of, united
from gradistill.commands.content_hashes import (
    UNLABELLED_SPLITS,
    config_and_tokenizer_hash,
    content_hash,
    file_hashes,
    meaning_name,
    weights_hash,
)
from gradistill.commands.data_warnings import NewWarnings, refuse_words
from gradistill.commands.distill import distill
from gradistill.commands.output_folder import FolderKind, check_output, locked_output
from gradistill.commands.prepared_run import prepared_run
from gradistill.commands.run_folder import recorded_metrics
from gradistill.commands.search_space import SearchField, changes_of, default_space, values_of
from gradistill.commands.signal_stores import AUTO, StoreChoice
from gradistill.data import DataChoice, read_splits
from gradistill.data.data_source import Source, is_path, path_text
from gradistill.errors import DataError, GradistillError, ModelError, RecipeError, nearest
from gradistill.io import digest, discard, draft_of, path_of, shown_differences, write_whole
from gradistill.models.model_source import ModelSource, model_name
from gradistill.package_versions import installing
from gradistill.printing import log_filter
from gradistill.recipe import Recipe
from gradistill.store.fingerprint import model_hash
from gradistill.training.arguments import check_training

logger = logging.getLogger(__name__)

DATABASE, TRIALS, BEST, REPORT = "tune.db", "trials", "best.yaml", "tune.json"
METRIC = "metric"
NEWER = {meaning_name("teacher"), "unlabelled", "checkpoint"}
"""Entries that searches of earlier versions did not record. A missing entry counts as unchanged."""
_TRIAL = re.compile(r"[0-9a-f]{16}")
"""The folder of a trial is named by a hash of its values."""
AIMS = (METRIC, "label_loyalty", "probability_loyalty", "response_loyalty", "saliency_loyalty")
"""The figures that can be maximised: the task's selecting metric, and the loyalties. Several are averaged."""
DEFAULT_AIM = (METRIC, "response_loyalty")
HARDLY = 0.1
"""A gain over the floor below which a search warns."""


def _is_search(output: Path) -> bool:
    """Whether an earlier version wrote the folder: it holds an SQLite file, and only files of a search."""
    known = {DATABASE, f"{DATABASE}-journal", TRIALS, BEST, REPORT}
    if not all(path.name in known or draft_of(".+").fullmatch(path.name) for path in output.iterdir()):
        return False
    try:
        with (output / DATABASE).open("rb") as stream:
            return stream.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


SEARCH = FolderKind("search", _is_search)


@dataclass(frozen=True)
class Tuning:
    """How to search. ``resolve`` makes a recipe from changes. ``minutes`` and ``trials`` bound one call, not the whole
    search; a trial that runs when the time is over is finished. The default ``space`` is ``default_space``."""

    resolve: Callable[[Sequence[str]], Recipe]
    space: tuple[SearchField, ...] = ()
    aim: tuple[str, ...] = DEFAULT_AIM
    minutes: float | None = 60.0
    trials: int | None = None

    def settled(self) -> tuple[SearchField, ...]:
        """The search space. Raises RecipeError for fields that the recipe does not have, and for an unknown aim."""
        if unknown := [name for name in self.aim if name not in AIMS]:
            raise RecipeError(f"--maximize {unknown[0]!r}", remedy=nearest(unknown[0], AIMS))
        if self.minutes is None and self.trials is None:
            raise RecipeError(
                "the search has no end", expected="--minutes or --trials", remedy="give one of them"
            )
        fields = [one.field for one in self.space]
        if twice := next((field for field in fields if fields.count(field) > 1), None):
            raise RecipeError(
                f"--search names {twice} twice", expected="each field once", remedy="leave one of them out"
            )
        space = self.space or default_space(self.resolve(()))
        check_training(self.resolve(changes_of(space, {one.field: one.first for one in space})))
        return space


def tune(
    teacher: ModelSource,
    data: DataChoice | Source,
    output: str | Path,
    tuning: Tuning,
    *,
    signals: StoreChoice = AUTO,
) -> dict[str, Any]:
    """Search until the time or the trials are over; returns what ``tune.json`` holds.

    Only the best student is kept, and its recipe as ``best.yaml``. The same call on the same folder continues the
    search. Trials are compared on the validation split, so its figures are too good: evaluate the best student on other
    rows. Raises RecipeError if the folder holds a search for something else.
    """
    optuna, choice = _optuna(), DataChoice.of(data)
    folder, space = path_of(output), tuning.settled()
    check_output(folder, SEARCH)
    if not (folder / DATABASE).is_file():  # fail before the folder is made if teacher or data cannot be read
        with log_filter(lambda record: False):  # the first trial logs the same lines
            run = prepared_run(teacher, choice, tuning.resolve(()))
        refuse_words(run.task, "gradistill tune")
        run.required_signals()
    with locked_output(folder, SEARCH):
        about = {
            "recipe": tuning.resolve(()).as_written(), "space": [str(one) for one in space], "aim": list(tuning.aim),
            "teacher": _teacher_mark(teacher), "data": _data_mark(choice),
            **_other_marks(teacher, choice, tuning.resolve(()).student.checkpoint),
        }  # fmt: skip
        study = _study(optuna, folder, about, tuning.resolve(()))
        _again(optuna, study)
        new_warnings = NewWarnings(data_lines=True)

        def distil(at: Path, recipe: Recipe, callbacks: list[TrainerCallback]) -> dict[str, Any]:
            with log_filter(new_warnings):
                return distill(
                    teacher, choice, at, recipe, signals=signals, callbacks=callbacks, overwrite=True
                )

        search = _Search(optuna, study, folder, tuning, space)
        search.begin()
        until = None if tuning.minutes is None else monotonic() + 60 * tuning.minutes
        count = 0
        while (tuning.trials is None or count < tuning.trials) and (until is None or monotonic() < until):
            search.trial(distil)
            count += 1
        return search.report()


def _teacher_mark(teacher: ModelSource) -> str:
    """The name of a search's teacher, and a hash of its content."""
    content = (
        model_hash(teacher[0]) if isinstance(teacher, tuple) else digest(weights_hash(model_name(teacher)))
    )
    return f"{model_name(teacher)} {content[:16]}"


def _other_marks(teacher: ModelSource, choice: DataChoice, checkpoint: str | None) -> dict[str, str | None]:
    """Hashes of the other inputs of a search. Earlier versions did not record them."""
    hashes: dict[str, str | None] = {}
    if not isinstance(teacher, tuple):
        hashes[meaning_name("teacher")] = config_and_tokenizer_hash(model_name(teacher))
    if is_path(choice.unlabelled):
        hashes["unlabelled"] = digest(file_hashes(Path(path_text(choice.unlabelled)), UNLABELLED_SPLITS))
    if checkpoint:
        hashes["checkpoint"] = content_hash(checkpoint)
    return hashes


def _data_mark(choice: DataChoice) -> str:
    """The options for reading a search's data, and a hash of the content."""
    named = " ".join(
        (choice.name, *choice.options()[2:])
    )  # the same as in earlier versions, if no newer option is set
    if is_path(choice.source):
        content: Mapping[str, str] = file_hashes(Path(path_text(choice.source)))
    else:
        content = {split: digest(rows.to_dict())[:16] for split, rows in read_splits(choice).rows.items()}
    return f"{named} {digest(content)[:16]}"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise RecipeError(
            "gradistill tune needs Optuna, which is not installed.",
            expected="the extra tune",
            remedy=installing("tune"),
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, about: Mapping[str, Any], recipe: Recipe) -> Any:
    """The Optuna study of this folder, new or continued."""
    # The path is not part of the URL, where ? and % have another meaning.
    opened = partial(sqlite3.connect, folder / DATABASE, check_same_thread=False)
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": opened}),
        study_name="tune", direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )  # fmt: skip
    before = study.user_attrs.get("about")
    if before is not None:
        before = {**{name: about[name] for name in NEWER & about.keys()}, **before}
        # Earlier versions recorded the length before it was known from the teacher, and paths without a hash.
        length = recipe.settled_by(before.get("recipe"))
        paths = {n: before[n] for n in ("teacher", "data") if _is_same(before.get(n), about[n])}
        about = {**about, **paths, "recipe": length.as_written()}
        if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
            before["aim"] = about["aim"]  # no trial was compared by the earlier aim
    if before is not None and before != dict(about):
        other = next(key for key in about if before.get(key) != about[key])
        changed = shown_differences(before, dict(about))
        raise RecipeError(
            f"{folder} holds a search with another {other}:\n" + "\n".join(f"  - {line}" for line in changed),
            expected="the same command, or a new folder",
            remedy="choose another --output",
        )
    study.set_user_attr("about", dict(about))
    # Each call has its own seed; otherwise the first draws of the last call would be repeated.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=8)
    return study


def _is_same(before: Any, now: str) -> bool:
    """Whether a teacher or data that a search recorded are those of ``now``: by content, wherever the files are."""
    return isinstance(before, str) and (before == now.rpartition(" ")[0] or _content(before) == _content(now))


def _content(mark: str) -> str:
    """A mark without the path at its start: the options for reading, if there are any, and the hash."""
    return mark[mark.find(" --") if " --" in mark else mark.rfind(" ") :]


def _again(optuna: Any, study: Any) -> None:
    """Put the values of trials that were stopped into the queue again."""
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(states=(running,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
            logger.info(f"going on with trial {trial.number}")


@dataclass
class _Search:
    """A running search in its folder."""

    optuna: Any
    study: Any
    folder: Path
    tuning: Tuning
    space: tuple[SearchField, ...]
    warned: bool = False
    """Whether the warning about a figure that the task does not have was logged."""

    def begin(self) -> None:
        """Put the recipe as it is into the queue of a new search, where the space has its values: the best trial is
        compared with it."""
        values = values_of(self.tuning.resolve(()), self.space)
        if values is not None and not self.study.trials:
            self.study.enqueue_trial(values)
            logger.info("trial 0 is the recipe without changes")

    def trial(self, run: Callable[[Path, Recipe, list[TrainerCallback]], Mapping[str, Any]]) -> None:
        trial = self.study.ask()
        values = {one.field: one.value(trial) for one in self.space}
        trial_folder = self.folder / TRIALS / digest(values)[:16]
        shown = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                          for key, value in values.items())  # fmt: skip
        states = self.optuna.trial.TrialState
        try:
            recipe = self.tuning.resolve(changes_of(self.space, values))
            pruning = _Pruning(self.optuna, trial, on=METRIC in self.tuning.aim)
            metrics = recorded_metrics(trial_folder) or run(trial_folder, recipe, [pruning])
        except self.optuna.TrialPruned:
            self.study.tell(trial, state=states.PRUNED)
            logger.info(f"trial {trial.number}: stopped early, behind the others ({shown})")
            if trial_folder.is_dir():
                discard(trial_folder)
        except GradistillError as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=states.FAIL)
            logger.error(f"trial {trial.number}: FAILED ({shown}): {error}")
            done = self.study.get_trials(deepcopy=False, states=(states.COMPLETE,))
            if isinstance(error, ModelError | DataError) and not done:
                raise  # no trial can read the teacher or the data
        else:
            figures = _figures(metrics)
            score = self._score(figures)
            trial.set_user_attr("figures", figures)
            trial.set_user_attr("floors", _loyalties(metrics, "floor"))
            trial.set_user_attr(TRAINED_ON, trained_on_of(metrics["loyalty"] or {}))
            self.study.tell(trial, score)
            logger.info(f"trial {trial.number}: {score:.4f} ({shown})")
            self._keep_best()

    def _score(self, figures: Mapping[str, float]) -> float:
        """The mean of the maximised figures. Missing default figures are skipped. Raises RecipeError for a missing
        figure of ``--maximize``."""
        missing = [name for name in self.tuning.aim if name not in figures]
        if missing and self.tuning.aim != DEFAULT_AIM:
            raise RecipeError(
                f"--maximize {missing[0]!r}, which this task does not have",
                remedy=f"choose among {', '.join(figures)}; the trial that was trained is kept",
            )
        if missing and not self.warned:
            logger.warning(f"no {missing[0]} on this task: trials are compared by the metric only")
            self.warned = True
        maximized = [figures[name] for name in self.tuning.aim if name in figures]
        return sum(maximized) / len(maximized)

    def _keep_best(self) -> None:
        best = self.study.best_trial
        kept = digest({one.field: best.params[one.field] for one in self.space})[:16]
        for other in (self.folder / TRIALS).iterdir():
            if _TRIAL.fullmatch(other.name) and other.name != kept and other.is_dir():
                discard(other)
        recipe = self.tuning.resolve(changes_of(self.space, best.params))
        write_whole(self.folder / BEST, recipe.as_yaml().encode())

    def report(self) -> dict[str, Any]:
        """All trials, the best first; written as ``tune.json``."""
        done = [t for t in self.study.trials if t.value is not None and t.state.name == "COMPLETE"]
        ranked = sorted(done, key=lambda t: -t.value)
        trials = [
            {"trial": t.number, "score": t.value, **t.user_attrs.get("figures", {}), "values": t.params}
            for t in ranked
        ]
        states = [t.state.name for t in self.study.trials]
        floors = ranked[0].user_attrs.get("floors", {}) if ranked else {}
        if floors:
            self._warn_of_floors(trials[0], floors)
        report = {
            **self.study.user_attrs["about"], "trials": trials, "floors": floors,
            "pruned": states.count("PRUNED"), "failed": states.count("FAIL"), TRAINED_ON: self._trained(),
        }  # fmt: skip
        write_whole(self.folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
        return report

    def _warn_of_floors(self, best: Mapping[str, Any], floors: Mapping[str, float]) -> None:
        """Warn where the best trial is hardly above the student before its first step."""
        for name in self.tuning.aim:
            if name in floors and name in best and best[name] - floors[name] < HARDLY * (1 - floors[name]):
                logger.warning(
                    f"the best trial's {name.replace('_', ' ')} is {best[name]:.3f}, and that of the student before "
                    f"its first step {floors[name]:.3f}: the search rewards students that hardly train. Train for "
                    "longer, search higher learning rates, or maximise another figure"
                )

    def _trained(self) -> dict[str, list[str]]:
        """The loyalties that trials are trained on, each with the objectives that train it."""
        of_trials = (trial.user_attrs.get(TRAINED_ON, {}) for trial in self.study.trials)
        objectives_by_figure = united(trained_figures(self.tuning.resolve(())), *of_trials)
        named = {f"{figure}_loyalty": objectives for figure, objectives in objectives_by_figure.items()}
        return {name: named[name] for name in AIMS if name in named}


class _Pruning(TrainerCallback):
    """Stops a run whose selecting metric is worse than the median of the trials before it, after the same epoch.

    The study maximises, so a loss is reported with its sign changed.
    """

    def __init__(self, optuna: Any, trial: Any, *, on: bool) -> None:
        self.optuna, self.trial, self.on = optuna, trial, on

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        name = str(args.metric_for_best_model).removeprefix("eval_")
        value = (metrics or {}).get(f"eval_{name}")
        if not self.on or value is None:
            return
        self.trial.report(value if args.greater_is_better else -value, step=round(100 * (state.epoch or 0)))
        if self.trial.should_prune():
            raise self.optuna.TrialPruned


def _loyalties(metrics: Mapping[str, Any], part: str) -> dict[str, float]:
    """A ``part`` of each loyalty of a run, its value or its floor, where it has one."""
    parts = {f"{kind}_loyalty": e.get(part) for kind, e in (metrics["loyalty"] or {}).items() if e}
    return {name: number for name, number in parts.items() if number is not None}


def _figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The selecting metric and the loyalties of a run."""
    metric = next(iter(metrics["eval"].values()))  # a task's first metric selects
    return _loyalties(metrics, "value") | ({} if metric is None else {METRIC: metric})
