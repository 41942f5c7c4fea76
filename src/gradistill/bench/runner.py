"""The bench: prepare rows, teachers and stores, train students, and compare them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from gradistill.bench.cluster import Cluster
from gradistill.bench.plan import BenchPlan, Cell, cells, earlier_fingerprint, fingerprint
from gradistill.bench.process_pool import (
    FIRST_GUESS,
    Command,
    CommandResult,
    Concurrency,
    Prerequisite,
    duration,
    run_all,
)
from gradistill.bench.result_lines import RESULTS, Key, done, failed, read_lines, write_lines
from gradistill.bench.results import summary
from gradistill.bench.task_setup import (
    TaskWithTeacher,
    by_texts,
    prepared_rows,
    sibling_file,
    store_of,
    task_with_best_teacher,
    teacher_commands,
    variant_of,
    with_lengths,
    written_recipe,
)
from gradistill.commands.content_hashes import content_hash
from gradistill.commands.output_folder import FolderKind, locked_output
from gradistill.commands.run_folder import finished_run, recorded_metrics
from gradistill.data.tasks import metric_title
from gradistill.errors import GradistillError
from gradistill.io import discard, draft_of, path_of, remove_drafts, write_whole
from gradistill.recipe.strict_yaml import read_yaml
from gradistill.report.bench_page import bench_page, bench_tables

logger = logging.getLogger(__name__)

PLAN, SUMMARY, PAGE, TABLES = "bench.yaml", "bench.json", "bench.html", "bench.md"
JOBS = "jobs"
"""The folder for the files of a cluster's jobs."""


def _is_bench(output: Path) -> bool:
    """Whether an earlier version wrote the folder: its plan has every key, unlike one that is written by hand."""
    try:
        plan = read_yaml(output / PLAN)
    except (OSError, ValueError):
        return False
    if not isinstance(plan, dict) or plan.keys() != BenchPlan.model_fields.keys():
        return False
    known = {PLAN, SUMMARY, PAGE, TABLES, RESULTS, JOBS, "cache", "predictions", *plan["tasks"]}
    return all(path.name in known or draft_of(".+").fullmatch(path.name) for path in output.iterdir())


BENCH = FolderKind("bench", _is_bench)


def bench(
    plan: BenchPlan, output: str | Path, *, at_once: int | None = None, cluster: Cluster | None = None
) -> dict[str, Any]:
    """Run the unfinished cells of a plan, ``at_once`` students at a time; returns what ``bench.json`` holds.

    Teachers and students are processes on this machine, or jobs of a ``cluster``. On a cluster each student has its own
    store, because the machine that submits jobs computes nothing.

    Each student has its own run folder below ``output``, and a line in ``results.jsonl``. The line of a failed student
    has the error, and the next call tries it again. After any stop the same call resumes the bench. Raises RecipeError
    for a folder that holds something else, or in which another process works.
    """
    folder = path_of(output)
    with locked_output(folder, BENCH):
        remove_drafts(folder, below=True)
        content = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_whole(folder / PLAN, content.encode())
        return Bench(plan, folder, Concurrency.of_this_machine(at_once), cluster).run()


@dataclass
class Bench:
    """A running bench in its folder. By cell: ``lines`` are its results so far, ``fingerprints`` hashes of its inputs,
    and ``task_errors`` the errors of whole tasks in this call."""

    plan: BenchPlan
    output: Path
    concurrency: Concurrency
    cluster: Cluster | None = None
    lines: dict[Key, dict[str, Any]] = field(default_factory=dict)
    fingerprints: dict[Key, str] = field(default_factory=dict)
    tasks: dict[str, TaskWithTeacher] = field(default_factory=dict)
    task_errors: dict[Key, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Run all unfinished cells; returns the comparison. Finished cells are compared even if an error is raised."""
        self.lines = read_lines(self.output / RESULTS)
        wanted = list(cells(self.plan))
        try:
            self._teach(wanted)
            self._train(wanted)
        finally:
            comparison = self._report(wanted)
        if self.plan.predictions:
            from gradistill.bench.glue_submission import write_submissions  # few benches write them

            write_submissions(self.plan, self.tasks, self._standing(wanted), self.output)
        return comparison

    def _teach(self, wanted: Sequence[Cell]) -> None:
        """Prepare rows and teachers. An error of a task here is the error of all its cells."""
        rows, commands = {}, list[Command]()
        for name in self.plan.tasks:
            with self._recording_task_errors(name, wanted):
                rows[name] = prepared_rows(self.plan, name, self.output)
                commands += teacher_commands(self.plan, name, self.output, rows[name])
        self._run(
            commands,
            lambda ended, left: self._report_end(ended, left, {"error": ended.message} if ended.code else {}),
        )
        for name in rows:
            with self._recording_task_errors(name, wanted):
                self.tasks[name] = task_with_best_teacher(self.plan, name, self.output, rows[name])

    def _train(self, wanted: Sequence[Cell]) -> None:
        count = len(wanted)
        wanted = with_lengths([cell for cell in wanted if cell.task in self.tasks], self.tasks)
        content = cache(content_hash)  # cells share checkpoints
        for cell in wanted:
            task = self.tasks[cell.task]
            inputs = {"rows": task.rows.fingerprint, "teacher": task.fingerprint}
            self.fingerprints[cell.key] = mark = fingerprint(cell, inputs, content)
            line = self.lines.get(cell.key, {})
            if line.get("fingerprint") == earlier_fingerprint(cell, inputs):
                line["fingerprint"] = mark
        left = [cell for cell in wanted if not self._is_done(cell)]
        logger.info(f"{len(wanted) - len(left)} of {count} students finished, {len(left)} to train")
        # A store holds the signals of all methods, also of finished cells, so the store of an earlier call fits.
        stores = {
            (name, texts): Prerequisite(partial(self._stored, name, texts, group))
            for name in (self.tasks if self.cluster is None else ())
            for texts, group in by_texts(cell for cell in wanted if cell.task == name).items()
        }
        by_name = {cell.name: cell for cell in left}
        commands = [
            self._command(c, stores.get((c.task, variant_of(c))) if c.recipe.needs_teacher else None)
            for c in left
        ]
        self._run(commands, lambda ended, time: self._ended(by_name[ended.command.name], ended, time))

    def _stored(self, name: str, texts: str, cells: Sequence[Cell]) -> Sequence[str]:
        """The arguments for a task's store. It is built when its first student starts, so other tasks go first."""
        logger.info(f"{name}: building the store of teacher signals, if it is not complete")
        return ["--signals", store_of(self.tasks[name], cells, self.output / name / f"store-{texts}")]

    def _command(self, cell: Cell, store: Prerequisite | None) -> Command:
        task, folder = self.tasks[cell.task], self.output / cell.folder
        file = written_recipe(cell.recipe, sibling_file(folder, ".yaml"))
        arguments = [
            "distill", "--teacher", task.teacher, *task.rows.options, "--recipe", str(file), "--settings", "default",
            "--verify", "fast", "--output", str(folder), "--overwrite",
        ]  # fmt: skip
        return Command(cell.name, arguments, sibling_file(folder, ".log"), store, self.fingerprints[cell.key])

    def _run(self, commands: Sequence[Command], on_end: Callable[[CommandResult, float], None]) -> None:
        if commands:
            cache = {"GRADISTILL_CACHE": str((self.output / "cache").resolve())}
            if self.cluster is not None:
                self.cluster.run(commands, cache, on_end)
            else:
                run_all(commands, self.concurrency, cache, self._needed, on_end)

    def _needed(self) -> float:
        """The peak memory of the largest student so far, in bytes."""
        ended = [line for line in self.lines.values() if line["status"] == "done"]
        return max((line["timing"]["peak_rss_mb"] * 1e6 for line in ended), default=FIRST_GUESS)

    def _ended(self, cell: Cell, ended: CommandResult, left: float) -> None:
        folder, mark = self.output / cell.folder, self.fingerprints[cell.key]
        metrics = recorded_metrics(folder) if ended.code == 0 else None
        if metrics is not None:
            at_once = 1 if self.cluster is not None else self.concurrency.at_once
            line = done(cell, mark, metrics, self.tasks[cell.task].rows.task.select, at_once)
        else:
            line = failed(cell, mark, ended.message or f"it ended with code {ended.code}")
        self.lines[cell.key] = line
        write_lines(self.output / RESULTS, self.lines.values())
        self._report_end(ended, left, line)
        if not self.plan.keep_models and line["status"] == "done":
            discard(folder)

    def _report_end(self, ended: CommandResult, left: float, line: Mapping[str, Any]) -> None:
        took = f"{duration(ended.seconds)}, about {duration(left)} left"
        if "error" in line:
            logger.error(f"FAILED {ended.command.name} ({took}): {line['error']}")
            return
        loyal = {kind: entry["value"] for kind, entry in (line.get("loyalty") or {}).items() if entry}
        scores = {metric_title(n, line.get("positive")): v for n, v in (line.get("eval") or {}).items()}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in {**scores, **loyal}.items())
        logger.info(f"{ended.command.name} ({took}){': ' if shown else ''}{shown}")

    def _is_done(self, cell: Cell) -> bool:
        if not self._standing([cell]):
            return False
        return not self.plan.keep_models or finished_run(self.output / cell.folder, cell.recipe)

    def _standing(self, wanted: Sequence[Cell]) -> list[dict[str, Any]]:
        """The lines of finished cells whose recipe, rows and teacher are unchanged, or not known yet: a call that stops
        before it knows them keeps the report of earlier ones."""
        candidates = [
            (self.lines[cell.key], self.fingerprints.get(cell.key))
            for cell in wanted
            if cell.key in self.lines and cell.key not in self.task_errors
        ]
        return [
            line
            for line, mark in candidates
            if line["status"] == "done" and mark in (None, line["fingerprint"])
        ]

    @contextmanager
    def _recording_task_errors(self, name: str, wanted: Sequence[Cell]) -> Iterator[None]:
        """Record an error inside the block as the error of all cells of the task, for this call. Earlier lines of the
        task are kept, and other tasks continue."""
        try:
            yield
        except GradistillError as error:
            logger.error(f"FAILED {name}: {error}")
            for cell in wanted:
                if cell.task == name:
                    self.task_errors[cell.key] = failed(cell, "", str(error))

    def _report(self, wanted: Sequence[Cell]) -> dict[str, Any]:
        last = [self.task_errors.get(cell.key) or self.lines.get(cell.key, {}) for cell in wanted]
        broken = [line for line in last if line.get("status") == "failed"]
        teachers = {
            name: {"tried": task.tried, "rows": dict(task.rows.counts)} for name, task in self.tasks.items()
        }
        comparison = summary(self._standing(wanted), broken, teachers, self.plan)
        write_whole(self.output / SUMMARY, (json.dumps(comparison, indent=1) + "\n").encode())
        write_whole(self.output / TABLES, bench_tables(comparison).encode())
        write_whole(self.output / PAGE, bench_page(comparison).encode())
        return comparison
