"""The settings of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from gradistill.auditing.faithfulness import BEAM
from gradistill.auditing.function_predictor import PredictFunction
from gradistill.auditing.methods import Method
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.per_example import GROUPS, LESS_IS_BETTER
from gradistill.commands.figure_limits import check_limits
from gradistill.data.marked_spans import Units
from gradistill.errors import RecipeError, check_one_of, check_whole_numbers
from gradistill.models.model_source import ModelSource
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading


@dataclass(frozen=True)
class AuditChoice:
    """What an audit measures, and on which rows.

    Fields that end in ``_rows`` are numbers of rows, drawn by ``seed``, for parts that run the models many times a
    text. 0 leaves a part out.

    Parameters:
        ``split``: the split to audit.
        ``method``: the attribution method of maps.
        ``max_rows``: rows to audit at most, drawn by ``seed``; None for all.
        ``max_length``: tokens a text; by default as the teacher was trained (``commands.text_lengths``).
        ``rationale``: a column of spans (``data.marked_spans``), in ``rationale_units``.
        ``challenge``: a second split, on which agreement is measured too.
        ``watched``: words whose attributions are reported.
        ``slices``: columns of the data; figures are also measured for each of their values.
        ``faithfulness_rows``: rows for faithfulness; a search of width ``beam`` finds its limits.
        ``map_checks``: add infidelity and max-sensitivity of both models' maps, on the rows for faithfulness.
        ``perturbed_rows``: rows for perturbations.
        ``response_rows``: rows for response loyalty and flips.
        ``shapley_rows``: rows for Shapley values, from ``shapley_pairs`` pairs of permutations.
        ``expected_gradients_rows``: rows for expected gradients.
        ``floor_rows``: rows for the floors of the other figures.
        ``reference``: a second teacher, trained with another seed. Its agreement with the teacher is shown too.
        ``costs``: add size, parameters, latency and throughput of all models on the CPU.
        ``cascade``: add the figures while the student's blocks are randomised from the top.
        ``examples``: examples on the page; half of them are those with the largest disagreement.
        ``reason``: why the model changes, for the report.
        ``loading``: how a large teacher is loaded.
        ``limits``: least values by figure (``--fail-under``).
    """

    split: str = "validation"
    method: Method = GradientXInput()  # noqa: RUF009 (frozen)
    max_rows: int | None = None
    max_length: int | None = None
    rationale: str | None = None
    rationale_units: Units = "characters"
    challenge: str | None = None
    watched: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    faithfulness_rows: int = 15
    beam: int = BEAM
    map_checks: bool = False
    perturbed_rows: int = 100
    response_rows: int = 60
    shapley_rows: int = 30
    shapley_pairs: int = 2
    expected_gradients_rows: int = 30
    floor_rows: int = 200
    reference: ModelSource | PredictFunction | None = None
    costs: bool = False
    cascade: bool = False
    examples: int = 400
    reason: str | None = None
    loading: TeacherLoading = AS_IT_IS
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"max_rows": 1, "max_length": 1, "beam": 1, "shapley_pairs": 1, "examples": 0, "seed": 0}
        parts = (
            "faithfulness_rows", "perturbed_rows", "response_rows", "shapley_rows", "expected_gradients_rows",
            "floor_rows",
        )  # fmt: skip
        check_one_of(self, "rationale_units", get_args(Units))
        check_whole_numbers(self, **counts, **dict.fromkeys(parts, 0))
        loyalties, others = GROUPS["loyalty"], (name for names in GROUPS.values() for name in names)
        no_words = [word for word in self.watched if not (isinstance(word, str) and word.strip())]
        if isinstance(self.watched, str) or no_words:
            raise RecipeError(
                f"watched is {self.watched!r}",
                expected="a tuple of words",
                remedy='write them so: watched=("monday", "new york")',
            )
        check_limits(self.limits, loyalties, others, owner="audit")
        if lower := [name for name in self.limits if name in LESS_IS_BETTER]:
            raise RecipeError(
                f"a limit for {lower[0]}, of which less is better",
                expected="a figure that must not be below its limit",
                remedy=f"leave it out: {lower[0]} is in audit.json",
            )
        self._check_idle_parts()

    def _check_idle_parts(self) -> None:
        """Raise RecipeError for an option whose part has no rows: it would have no effect."""
        idle = {
            "map_checks": (self.map_checks and not self.faithfulness_rows, "faithfulness_rows"),
            "cascade": (self.cascade and not (self.floor_rows or self.response_rows), "response_rows"),
        }
        compared = (
            self.floor_rows, self.response_rows, self.shapley_rows, self.expected_gradients_rows,
        )  # fmt: skip
        idle["reference"] = (self.reference is not None and not any(compared), "response_rows")
        for name, (without_rows, rows) in idle.items():
            if without_rows:
                raise RecipeError(
                    f"{name} was set, and {rows} is 0, so there are no rows for it",
                    expected=f"{rows} of 1 or more",
                    remedy=f"set {rows}, or leave {name} out",
                )
