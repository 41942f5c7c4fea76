"""A model in memory, with its name in messages and the facts that a forward pass shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel

from gradistill.models.input_limits import Limits
from gradistill.models.probe import Probe, ProbedModel


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. ``owner`` is its role in messages (such as teacher), ``name`` its folder or hub id, if any."""

    owner: str
    name: str
    model: PreTrainedModel

    @cached_property
    def probe(self) -> Probe:
        """The model's probe, found from one forward pass, once."""
        return Probe.find(self.model)

    @cached_property
    def probed(self) -> ProbedModel:
        """The model with its probe; whether its last block may be trimmed is verified once."""
        return ProbedModel.of(self.model, self.probe)

    @cached_property
    def limits(self) -> Limits:
        """The limits of the model's inputs."""
        return Limits.find(self.model)

    @property
    def positions(self) -> int | None:
        """The most tokens of a text, as the forward pass shows; None without a limit."""
        return self.limits.positions

    def __str__(self) -> str:
        return f"{self.owner} {self.name}".strip()
