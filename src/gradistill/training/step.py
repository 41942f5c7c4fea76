"""One step: one student forward pass, the fewest inner gradients, one value per objective and example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

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
    """All terms of the loss for one pair of models. ``teacher`` may be None where no term needs one."""

    terms: Sequence[Term]
    pair: Pair
    student_probe: Probe
    teacher: TeacherSignals | None

    @property
    def second_order(self) -> bool:
        return any(term.objective.second_order for term in self.terms)

    def at(self, number: int) -> Step:
        """What of it runs at an optimizer step, counted from 0: the terms whose turn it is."""
        return replace(self, terms=[term for term in self.terms if term.runs_at(number)])

    def requests(self, role: Role) -> tuple[Request, ...]:
        """The distinct requests of all terms in one role."""
        return requests_of(self.terms, self.pair, role)

    def distances(
        self, model: nn.Module, batch: Batch, moment: Moment
    ) -> tuple[dict[str, Float[Tensor, " batch"]], Tensor]:
        """Unweighted distances by objective, one value per example each, and the student's logits."""
        teacher_said: Said = {}
        teacher_labels = None
        if self.teacher is not None and (wanted := self.requests("teacher")):
            teacher_said = self.teacher(batch, dict.fromkeys((Logits(), *wanted)))
            teacher_labels = teacher_said[Logits()].argmax(-1)
        student_said = speak(
            model,
            self.student_probe,
            batch,
            dict.fromkeys((Logits(), *self.requests("student"))),
            create_graph=True,
            teacher_labels=teacher_labels,
        )
        distances = {
            term.name: term.objective.distance(
                self._named(term, "student", student_said),
                self._named(term, "teacher", teacher_said),
                batch,
                moment,
            )
            for term in self.terms
        }
        return distances, student_said[Logits()]

    def _named(self, term: Term, role: Role, said: Said) -> Signals:
        requests: Mapping[str, Request] = term.objective.requests(self.pair, role)
        return {name: said[request] for name, request in requests.items()}
