"""Integrated Gradients (Sundararajan et al. 2017), and expected gradients (Erion et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.adaptive_quadrature import integrated_to_tolerance
from gradistill.attribution.quadrature import IntegrationResult, Path, integrated_in_steps
from gradistill.errors import check_number, check_whole_numbers
from gradistill.signals.baselines import Baseline, baseline_embeddings, check_baseline
from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass

Steps = int | Literal["auto"]

NODES = 8
"""Fewest nodes of a path from tokens of the data, if ``steps`` allow it. With 4 nodes, the error of the integral hides
up to a third of two models' agreement. 16 nodes on six paths cost four times as much and show up to .08 more agreement
(docs/results/yardstick.md)."""


@dataclass(frozen=True)
class IntegratedGradients:
    """``‖A_i‖₂`` of the attributions along the path from a ``baseline`` (``signals.baselines``).

    ``steps``: Gauss–Legendre nodes, or ``"auto"`` for as many nodes as each row needs to reach completeness within
    ``tolerance`` (``attribution.adaptive_quadrature``). With the baseline ``tokens``, ``draws`` paths start from tokens
    of the data, and attributions are averaged over them. The paths share the steps; there are fewer paths if each would
    have less than ``NODES``. Models with one tokenizer share these draws, which makes their maps more similar. A path
    from ``zero`` leads through inputs that are no texts, where models of different depths diverge (docs/yardstick.md).
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated Gradients"
    source: ClassVar[str] = (
        "Sundararajan et al. 2017, arXiv 1703.01365; tokens: Erion et al. 2021, arXiv 1906.10670"
    )
    reruns: ClassVar[bool] = True

    steps: Steps = 50
    tolerance: float = 0.01
    baseline: Baseline = "mask"
    draws: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps != "auto":
            check_whole_numbers(self, steps=1)
        check_whole_numbers(self, draws=1, seed=0)
        check_baseline(self.baseline)
        check_number(self, "tolerance", above=0.0)

    @property
    def draws_tokens(self) -> bool:
        return self.baseline == "tokens"

    def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> IntegrationResult:
        """One vector for each token, with each row's completeness residual and number of nodes. With several paths the
        residual is the median of absolute values."""
        starts = baseline_embeddings(forward, self.baseline, draws=self._paths, seed=self.seed)
        together = rows_at_once or forward.rows_at_once
        return _mean([self._along(forward.path(EXPLAINED_TARGET, start), together) for start in starts])

    def _along(self, path: Path, together: int) -> IntegrationResult:
        if self.steps == "auto":
            return integrated_to_tolerance(path, tolerance=self.tolerance, rows_at_once=together)
        return integrated_in_steps(path, steps=self.steps // self._paths, rows_at_once=together)

    @property
    def _paths(self) -> int:
        """The number of paths: one, or with the baseline ``tokens`` one for each draw that gets ``NODES`` nodes."""
        if not self.draws_tokens:
            return 1
        return self.draws if self.steps == "auto" else min(self.draws, max(1, self.steps // NODES))

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return self.attributions(forward).attributions.norm(dim=-1)


def _mean(results: Sequence[IntegrationResult]) -> IntegrationResult:
    """The mean over several paths; nodes are summed."""
    if len(results) == 1:
        return results[0]
    attributions, residuals, nodes = (torch.stack(part) for part in zip(*results, strict=True))
    return IntegrationResult(attributions.mean(0), residuals.abs().median(0).values, nodes.sum(0))
