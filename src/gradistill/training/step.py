"""One step: one student forward pass, the fewest inner gradients, one value per objective and example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gradistill.models.probe import Probe
from gradistill.objectives._contract import Logits, Moment, Pair, Request, Role, Signals
from gradistill.objectives._term import Term
from gradistill.signals.speak import Said, speak
from gradistill.signals.teacher import TeacherSignals
from gradistill.types import Batch


def requests_of(terms: Sequence[Term], pair: Pair, role: Role) -> tuple[Request, ...]:
    """The distinct requests of all terms in one role."""
    return tuple(dict.fromkeys(r for term in terms for r in term.objective.requests(pair, role).values()))


@dataclass(frozen=True)
class Step:
    """All terms of the loss for one pair of models. ``teacher`` may be None where no term needs one.

    ``projections`` holds, by term and signal, the learned maps that the student's signals go through.
    """

    terms: Sequence[Term]
    pair: Pair
    student_probe: Probe
    teacher: TeacherSignals | None
    share_views: bool = True
    projections: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @property
    def second_order(self) -> bool:
        return any(term.objective.second_order for term in self.terms)

    def at(self, number: int, progress: float) -> Step:
        """What of it runs at an optimizer step, counted from 0, ``progress`` of the training being done."""
        return replace(self, terms=[term for term in self.terms if term.runs_at(number, progress)])

    def requests(self, role: Role) -> tuple[Request, ...]:
        """The distinct requests of all terms in one role."""
        return requests_of(self.terms, self.pair, role)

    def distances(
        self, model: nn.Module, batch: Batch, moment: Moment
    ) -> tuple[dict[str, Float[Tensor, " batch"]], Float[Tensor, "batch label"]]:
        """Unweighted distances by objective, one value per example each, and the student's logits.

        Where a term sees n of B rows, its distances there are B/n times as large, and 0 elsewhere. The rows then go
        through the models in parts, so that what only some of them need is computed for these alone.
        """
        rows = {term.name: term.rows_of(len(batch)) for term in self.terms}
        if set(rows.values()) == {len(batch)}:
            return self._distances(self.terms, model, batch, moment)
        assert batch.drawn is not None  # the trainer draws for every batch
        order, start = batch.drawn.place.argsort(), 0
        found: dict[str, list[Tensor]] = {name: [] for name in rows}
        logits = []
        for end in sorted({*rows.values(), len(batch)}):
            terms = [term for term in self.terms if rows[term.name] >= end]
            part, said = self._distances(terms, model, batch.rows(order[start:end]), moment)
            for name, values in part.items():
                found[name].append(values * (len(batch) / rows[name]))
            logits.append(said)
            start = end
        whole = {
            name: functional.pad(torch.cat(parts), (0, len(batch) - rows[name]))[batch.drawn.place]
            for name, parts in found.items()
        }
        return whole, torch.cat(logits)[batch.drawn.place]

    def _distances(
        self, terms: Sequence[Term], model: nn.Module, batch: Batch, moment: Moment
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Of rows that all these terms see."""
        teacher_said: Said = {}
        teacher_labels = None
        if self.teacher is not None and (wanted := requests_of(terms, self.pair, "teacher")):
            teacher_said = self.teacher(batch, dict.fromkeys((Logits(), *wanted)))
            teacher_labels = teacher_said[Logits()].argmax(-1)
        student_said = speak(
            model,
            self.student_probe,
            batch,
            dict.fromkeys((Logits(), *requests_of(terms, self.pair, "student"))),
            create_graph=True,
            teacher_labels=teacher_labels,
            share_views=self.share_views,
        )
        distances = {
            term.name: term.objective.distance(
                self._named(term, "student", student_said),
                self._named(term, "teacher", teacher_said),
                batch,
                moment,
            )
            for term in terms
        }
        return distances, student_said[Logits()]

    def _named(self, term: Term, role: Role, said: Said) -> Signals:
        requests: Mapping[str, Request] = term.objective.requests(self.pair, role)
        signals = {name: said[request] for name, request in requests.items()}
        if role == "student" and term.name in self.projections:
            maps: Any = self.projections[term.name]
            signals |= {name: linear(signals[name]) for name, linear in maps.items()}
        return signals
