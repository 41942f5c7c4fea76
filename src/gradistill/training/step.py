"""One training step: one forward pass of the student, the fewest inner gradients, and one distance per example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gradistill.batch import Batch
from gradistill.errors import TrainingError
from gradistill.models.probe import ProbedModel
from gradistill.objectives.base import EpochProgress, Pair, Role, Signals
from gradistill.objectives.term import Term
from gradistill.signals import Logits, Signal, SignalValues, TargetSignal, compute_signals
from gradistill.signals.counterfactual import edited_ids_of
from gradistill.signals.teacher import TeacherSignals


def signals_of(terms: Sequence[Term], pair: Pair, role: Role) -> tuple[Signal, ...]:
    """The distinct signals of all terms in one role."""
    return _distinct(term.objective.signals(pair, role) for term in terms)


def _distinct(named: Iterable[Mapping[str, Signal]]) -> tuple[Signal, ...]:
    return tuple(dict.fromkeys(signal for signals in named for signal in signals.values()))


@dataclass(frozen=True)
class Step:
    """All terms of the loss for one pair of models. ``teacher`` may be None if no term needs one.

    ``projections`` holds, by term and signal, the learned maps that are applied to the student's signals.
    """

    terms: Sequence[Term]
    pair: Pair
    student: ProbedModel
    teacher: TeacherSignals | None
    share_views: bool = True
    projections: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @cached_property
    def second_order(self) -> bool:
        return any(term.objective.second_order for term in self.terms)

    @cached_property
    def named_signals(self) -> Mapping[tuple[str, Role], Mapping[str, Signal]]:
        """The signals of each term in each role, by the names that the term's ``distance`` uses."""
        roles: tuple[Role, ...] = get_args(Role)
        return {
            (term.name, role): term.objective.signals(self.pair, role)
            for term in self.terms
            for role in roles
        }

    def signals(self, role: Role, terms: Sequence[Term] | None = None) -> tuple[Signal, ...]:
        """The distinct signals of ``terms`` (default: all terms) in one role."""
        wanted = self.terms if terms is None else terms  # an empty list is not None: no term sees some rows
        return _distinct(self.named_signals[term.name, role] for term in wanted)

    def running(self, number: int, progress: float) -> list[Term]:
        """The terms that run at optimizer step ``number`` (from 0), after the share ``progress`` of the training."""
        return [term for term in self.terms if term.runs_at(number, progress)]

    def distances(
        self, model: nn.Module, batch: Batch, progress: EpochProgress, terms: Sequence[Term] | None = None
    ) -> tuple[dict[str, Float[Tensor, " batch"]], Float[Tensor, "batch *token label"]]:
        """Unweighted distances by objective, one value per example, and the student's logits.

        ``terms`` are those that run (default: all). ``model`` is the student, or a wrapper of it. For a term that sees
        n of B rows, the distances of these rows are multiplied by B/n, and the others are 0. The rows then run through
        the models in parts, so that signals are computed only for rows that need them.
        """
        running = self.terms if terms is None else terms
        rows = {term.name: term.rows_of(len(batch)) for term in running}
        if set(rows.values()) == {len(batch)}:
            return self._distances(running, model, batch, progress)
        assert batch.drawn is not None  # the trainer draws for every batch
        order, start = batch.drawn.place.argsort(), 0
        parts_of: dict[str, list[Tensor]] = {name: [] for name in rows}
        logits = []
        for end in sorted({*rows.values(), len(batch)}):
            terms_of_part = [term for term in running if rows[term.name] >= end]
            distances, logits_of_part = self._distances(
                terms_of_part, model, batch.rows(order[start:end]), progress
            )
            for name, values in distances.items():
                parts_of[name].append(values * (len(batch) / rows[name]))
            logits.append(logits_of_part)
            start = end
        whole = {
            name: functional.pad(torch.cat(parts), (0, len(batch) - rows[name]))[batch.drawn.place]
            for name, parts in parts_of.items()
        }
        return whole, torch.cat(logits)[batch.drawn.place]

    def _distances(
        self, terms: Sequence[Term], model: nn.Module, batch: Batch, progress: EpochProgress
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Distances and logits of a batch whose rows are all seen by all ``terms``."""
        teacher: SignalValues = {}
        facts = self.pair.student
        batch = replace(batch, multi_label=facts.multi_label, token_labels=facts.token_labels)
        if self.teacher is not None and (wanted := self.signals("teacher", terms)):
            teacher = self.teacher(batch, dict.fromkeys((Logits(), *wanted)))
            batch = replace(
                batch, teacher_labels=teacher[Logits()].argmax(-1), edited_ids=edited_ids_of(teacher, batch)
            )
        student = compute_signals(
            model,
            self.student.probe,
            batch,
            (Logits(), *self.signals("student", terms)),
            create_graph=True,
            share_views=self.share_views,
        )
        distances = {
            term.name: self._views_each(term, batch)
            * term.objective.distance(
                self._named(term, "student", student), self._named(term, "teacher", teacher), batch, progress
            )
            for term in terms
        }
        for name, values in distances.items():
            if values.shape != (len(batch),):
                raise TrainingError(
                    f"The distance of the objective {name!r} has the shape {tuple(values.shape)}.",
                    expected=f"one value for each of the {len(batch)} examples of the batch: ({len(batch)},)",
                    remedy="average over everything but the examples; the trainer averages over these",
                )
        return distances, student[Logits()]

    def _views_each(self, term: Term, batch: Batch) -> int:
        """The factor for drawn views: the number of views that one computed view stands for."""
        signals = self.named_signals[term.name, "student"].values()
        targets = [signal.target for signal in signals if isinstance(signal, TargetSignal)]
        return max((target.sampling_factor(batch.drawn) for target in targets), default=1)

    def _named(self, term: Term, role: Role, values: SignalValues) -> Signals:
        signals = {name: values[signal] for name, signal in self.named_signals[term.name, role].items()}
        if role == "student" and term.name in self.projections:
            maps: Any = self.projections[term.name]
            signals |= {name: linear(signals[name]) for name, linear in maps.items()}
        return signals
