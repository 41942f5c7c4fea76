"""A model in memory, with the name that messages call it by and what its forward pass shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel

from gradistill.models.input_limits import Limits
from gradistill.models.probe import Probe, ProbedModel


@dataclass(frozen=True)
class LoadedModel:
    """A model that reads the texts; ``owner`` is what messages call it, ``name`` its folder or hub id, if any."""

    owner: str
    name: str
    model: PreTrainedModel

    @cached_property
    def probe(self) -> Probe:
        """What is found by looking at one forward pass, once."""
        return Probe.find(self.model)

    @cached_property
    def probed(self) -> ProbedModel:
        """The model with its probe; whether its last block may be trimmed is verified once."""
        return ProbedModel.of(self.model, self.probe)

    @cached_property
    def limits(self) -> Limits:
        """What the model can read."""
        return Limits.find(self.model)

    @property
    def positions(self) -> int | None:
        """As its forward pass shows."""
        return self.limits.positions

    def __str__(self) -> str:
        return f"{self.owner} {self.name}".strip()
