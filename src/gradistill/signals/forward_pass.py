"""One model, one batch, one forward pass: its records, its gradients, and runs of the batch with changed inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gradistill.attribution.gradients import view_gradients, widened
from gradistill.attribution.quadrature import Path, PathPoint
from gradistill.attribution.targets import Target
from gradistill.batch import UNLABELLED, Batch
from gradistill.errors import ModelError
from gradistill.models.attention import Heads, attending
from gradistill.models.probe import Probe
from gradistill.models.tracing import unwrapped

TOKENS_AT_ONCE = 2048
"""Approximate number of tokens, padding included, in one forward pass over many variants of a batch."""


@dataclass(frozen=True)
class Needs:
    """What a forward pass must record in addition to the logits.

    ``layers``: layers whose states, self-attention or gradients are read; 0 is the embedding output. ``attention``:
    whether queries, keys and values are recorded. ``targets`` are differentiated at the embedding output and at the
    states after ``gradient_layers``. ``embedding``: record the embedding output even without targets.
    """

    layers: tuple[int, ...] = ()
    attention: bool = False
    targets: tuple[Target, ...] = ()
    gradient_layers: tuple[int, ...] = ()
    embedding: bool = False

    @classmethod
    def union(cls, needs: Iterable[Needs]) -> Needs:
        """The union of ``needs``: what one forward pass must record for all of them."""
        needs = tuple(needs)
        return cls(
            layers=tuple(sorted({layer for need in needs for layer in need.layers})),
            attention=any(need.attention for need in needs),
            targets=tuple(dict.fromkeys(target for need in needs for target in need.targets)),
            gradient_layers=tuple(sorted({layer for need in needs for layer in need.gradient_layers})),
            embedding=any(need.embedding for need in needs),
        )


@dataclass(frozen=True, eq=False)
class Recorded:
    """The records of one forward pass.

    ``sites`` are the states inside the model, at which gradients are taken: DistributedDataParallel returns copies
    that the logits do not depend on. ``hidden_states`` are the returned states, from which losses must be computed.
    """

    logits: Float[Tensor, "batch *token label"]
    hidden_states: tuple[Tensor, ...] = ()
    sites: tuple[Tensor, ...] = ()
    attention: Sequence[Heads] = ()
    embedding: Float[Tensor, "batch token hidden"] | None = None

    def at(self, place: Int[Tensor, " batch"]) -> Recorded:
        """A copy whose logits are those of one token of each text, ``(batch, label)``."""
        rows = torch.arange(len(place), device=place.device)
        return replace(self, logits=self.logits[rows, place])


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A batch after its forward pass through a model. Create it with ``ForwardPass.run``.

    ``label_ids`` holds the labels whose logits each target differentiates (``Target.resolve``). They are resolved on
    the unchanged input, so that runs with changed inputs differentiate the same label. With ``create_graph`` all values
    keep their graph. Without ``share_views`` every view takes its own inner gradient, as the papers' code does.
    ``place``, for explained words of a token classifier (``passes_of_words``): the token of each text whose logits are
    used as the text's.
    """

    model: nn.Module
    probe: Probe
    batch: Batch
    needs: Needs
    recorded: Recorded
    label_ids: Mapping[Target, Tensor | None] = field(default_factory=dict)
    create_graph: bool = False
    share_views: bool = True
    place: Int[Tensor, " batch"] | None = None

    @classmethod
    def run(
        cls,
        model: nn.Module,
        probe: Probe,
        batch: Batch,
        needs: Needs,
        *,
        create_graph: bool = False,
        share_views: bool = True,
    ) -> ForwardPass:
        """Run the model once. Raises ModelError if it cannot record what is needed.

        Gradients must be enabled if ``needs`` has targets.
        """
        recorded = _recorded(model, probe, batch, needs)
        label_ids = {} if probe.token_labels else label_ids_of(needs.targets, recorded.logits, batch)
        return cls(model, probe, batch, needs, recorded, label_ids, create_graph, share_views)

    @property
    def logits(self) -> Float[Tensor, "batch *token label"]:
        """The logits, in float32 or wider, with their graph; for a token classifier the logits of every token."""
        return self.recorded.logits

    @property
    def embedding(self) -> Float[Tensor, "batch token hidden"]:
        """The embedding output, if it was recorded; with its graph if ``create_graph`` is set."""
        assert self.recorded.embedding is not None
        return self.recorded.embedding if self.create_graph else self.recorded.embedding.detach()

    @cached_property
    def text_positions(self) -> tuple[Tensor, Int[Tensor, " batch"]]:
        """Row indices, and the position in each row of the token that the head reads."""
        rows = torch.arange(len(self.batch), device=self.logits.device)
        return rows, self.probe.text_position(self.batch)

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """A cache of results that several signals of this forward pass share."""
        return {}

    def values(self, target: Target) -> Float[Tensor, "batch view"]:
        """The scalars that ``target`` differentiates."""
        return self.values_of(target, self.logits, self.label_ids[target])

    def values_of(
        self, target: Target, logits: Float[Tensor, "row label"], label_ids: Tensor | None
    ) -> Float[Tensor, "row view"]:
        """The scalars that ``target`` differentiates, computed from other logits of this model."""
        return target.values(logits, label_ids, multi_label=self.probe.multi_label)

    def gradients(self, target: Target, layer: int | None = None) -> Float[Tensor, "batch view token hidden"]:
        """The gradients of all views at the embedding output, or at the states after ``layer``."""
        site = 0 if layer is None else 1 + self.needs.gradient_layers.index(layer)
        return self._gradients[target][site]

    @cached_property
    def _gradients(self) -> Mapping[Target, Sequence[Tensor]]:
        """The gradients of all targets at all sites, from one call: views share inner gradients."""
        assert self.recorded.embedding is not None
        targets = self.needs.targets
        values = [self.values(target) for target in targets]
        by_site = view_gradients(
            torch.cat(values, dim=1),
            self.logits,
            [self.recorded.embedding, *(self.recorded.sites[k] for k in self.needs.gradient_layers)],
            create_graph=self.create_graph,
            shift_invariant=self.share_views
            and not self.probe.multi_label
            and all(target.shift_invariant for target in targets),
        )
        views = [value.shape[1] for value in values]
        by_target = zip(*(site.split(views, dim=1) for site in by_site), strict=True)
        return dict(zip(targets, by_target, strict=True))

    def rerun(
        self, embeddings: Float[Tensor, "row token hidden"], examples: Int[Tensor, " row"], target: Target
    ) -> ForwardPass:
        """Run the model from other embedding outputs; ``examples`` is the index of each one's example."""
        batch, needs = self.batch.rows(examples), Needs(targets=(target,))
        embeddings = embeddings if self.create_graph else embeddings.detach()
        label_ids = self.label_ids[target]
        place = None if self.place is None else self.place[examples]
        recorded = _recorded(self.model, self.probe, batch, needs, embeddings)
        return replace(
            self,
            batch=batch,
            needs=needs,
            recorded=recorded if place is None else recorded.at(place),
            label_ids={target: None if label_ids is None else label_ids[examples]},
            place=place,
        )

    def path(self, target: Target, baseline: Float[Tensor, "batch token hidden"] | None = None) -> Path:
        """The straight path from a baseline (default zero) to the embedding output, with ``target`` along it."""

        def at(embeddings: Tensor, examples: Tensor) -> PathPoint:
            point = self.rerun(embeddings, examples, target)
            return PathPoint(point.values(target), lambda: point.gradients(target))

        origin = torch.zeros_like(self.embedding) if baseline is None else baseline
        return Path(self.embedding, origin, self.values(target), at)

    def erase(
        self, erased: Bool[Tensor, "row token"], examples: Int[Tensor, " row"]
    ) -> Float[Tensor, "row label"]:
        """Logits of examples whose ``erased`` tokens are replaced by the mask token, without gradients.

        Token ids are replaced directly, nothing is decoded. Raises ModelError if the batch has no mask token.
        """
        if self.batch.mask_token_id is None:
            raise ModelError(
                "The batch has no token id that replaces an erased word.",
                expected="a collator with a property mask_token_id",
                remedy="use gradistill.Collator",
            )
        ids = self.batch.inputs["input_ids"][examples].masked_fill(erased, self.batch.mask_token_id)
        with torch.no_grad():
            return self.with_tokens(ids, examples)

    def with_tokens(
        self, token_ids: Int[Tensor, "row token"], examples: Int[Tensor, " row"]
    ) -> Float[Tensor, "row label"]:
        """Logits of examples with equally many other token ids; with their graph if gradients are enabled."""
        return self._in_parts(
            token_ids,
            examples,
            lambda ids, batch: _recorded(self.model, self.probe, _with_ids(batch, ids), Needs()).logits,
        )

    def of_inputs(self, columns: Mapping[str, Tensor]) -> Float[Tensor, "row label"]:
        """Logits of other texts, given as padded columns; with their graph if gradients are enabled."""
        device = self.batch.mask.device
        count, width = columns["input_ids"].shape
        size = max(1, TOKENS_AT_ONCE // width)
        parts = [
            Batch.of({name: tensor[start : start + size].to(device) for name, tensor in columns.items()})
            for start in range(0, count, size)
        ]
        return torch.cat([_recorded(self.model, self.probe, part, Needs()).logits for part in parts])

    def with_embeddings(
        self, embeddings: Float[Tensor, "row token hidden"], examples: Int[Tensor, " row"]
    ) -> Float[Tensor, "row label"]:
        """Logits of examples with other embedding outputs; with their graph if gradients are enabled."""
        return self._in_parts(
            embeddings,
            examples,
            lambda rows, batch: _recorded(self.model, self.probe, batch, Needs(), rows).logits,
        )

    def with_states_of(
        self,
        token_ids: Int[Tensor, "row token"],
        examples: Int[Tensor, " row"],
        places: Mapping[int, Bool[Tensor, "row token"]],
    ) -> Float[Tensor, "row label"]:
        """Logits of examples in which some states are replaced by those of other texts of equal length, ``token_ids``.

        ``places`` masks, for each layer, the tokens whose states after that layer are replaced. Both texts run through
        the model together. Logits have their graph if gradients are enabled.
        """
        logits = []
        for rows in torch.arange(len(examples), device=examples.device).split(max(1, self.rows_at_once // 2)):
            originals = self.batch.rows(examples[rows])
            both = self.batch.rows(examples[rows].repeat(2))
            both = _with_ids(both, torch.cat([originals.inputs["input_ids"], token_ids[rows]]))
            replaced = {layer: of_layer[rows] for layer, of_layer in places.items()}
            with self.probe.interchanged(self.model, replaced):
                logits.append(_recorded(self.model, self.probe, both, Needs()).logits[: len(rows)])
        return torch.cat(logits)

    def embedding_of(self, token_ids: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token hidden"]:
        """The embedding output of the batch with equally many other token ids, at the same positions."""
        batch = _with_ids(self.batch, token_ids)
        if (positions := _counted_positions(self.model, self.batch)) is not None:
            batch = replace(batch, inputs={**batch.inputs, "position_ids": positions})
        recorded = _recorded(self.model, self.probe, batch, Needs(embedding=True))
        assert recorded.embedding is not None
        return recorded.embedding

    def _in_parts(
        self,
        changed: Tensor,
        examples: Int[Tensor, " row"],
        logits_of: Callable[[Tensor, Batch], Tensor],
    ) -> Float[Tensor, "row label"]:
        """Logits of changed inputs of ``examples``, ``rows_at_once`` of them in each forward pass."""
        parts = zip(changed.split(self.rows_at_once), examples.split(self.rows_at_once), strict=True)
        return torch.cat([logits_of(rows, self.batch.rows(indices)) for rows, indices in parts])

    @property
    def rows_at_once(self) -> int:
        """The number of rows of this length that make up about ``TOKENS_AT_ONCE`` tokens."""
        return max(1, TOKENS_AT_ONCE // self.batch.mask.shape[1])


def _counted_positions(model: nn.Module, batch: Batch) -> Int[Tensor, "batch token"] | None:
    """Position ids for a model that counts non-padding tokens (RoBERTa); None for other models.

    If a word were replaced by padding, such a model would shift the positions of all tokens after it.
    """
    for part in unwrapped(model).modules():
        pad = getattr(part, "padding_idx", None)
        if pad is not None and any(name.startswith("create_position_ids") for name in dir(type(part))):
            real = (batch.inputs["input_ids"] != pad).long()
            return real.cumsum(1) * real + pad
    return None


def _with_ids(batch: Batch, token_ids: Tensor) -> Batch:
    return replace(batch, inputs={**batch.inputs, "input_ids": token_ids})


def _recorded(
    model: nn.Module, probe: Probe, batch: Batch, needs: Needs, embeddings: Tensor | None = None
) -> Recorded:
    """Run a model and record what is needed. ``embeddings`` replace its own embedding output."""
    if needs.attention and not probe.heads:
        raise ModelError(
            f"the self-attention of {type(unwrapped(model)).__name__} cannot be recorded",
            expected="attention that transformers' AttentionInterface chooses, of one width in all layers",
            remedy="use a method without attention (kd, coalition, ckd), or another architecture",
        )
    if probe.layers in needs.layers:  # the last layer's states must be computed for every token
        probe = replace(probe, trim=None)
    taps: list[Tensor] = []
    inside: list[Any] = []
    with ExitStack() as hooks:
        if needs.targets or needs.embedding or embeddings is not None:
            taps = hooks.enter_context(probe.tapped(model, replacement=embeddings))
        hooks.enter_context(probe.trimmed(model, batch))
        attention = hooks.enter_context(attending(model)) if needs.attention else []
        if needs.layers:
            keep = unwrapped(model).register_forward_hook(
                lambda _model, _inputs, output: inside.append(output)
            )
            hooks.callback(keep.remove)
        outputs = model(**batch.inputs, **({"output_hidden_states": True} if needs.layers else {}))
    states = tuple(outputs.hidden_states or ()) if needs.layers else ()
    sites = tuple(inside[-1].hidden_states or ()) if needs.layers else ()
    return Recorded(widened(outputs.logits), states, sites, attention, taps[-1] if taps else None)


def label_ids_of(targets: Sequence[Target], logits: Tensor, batch: Batch) -> dict[Target, Tensor | None]:
    """The labels that each target differentiates. Rows without a gold label use the teacher's label; without a
    teacher, the label that this model predicts."""
    teacher, gold = batch.teacher_labels, batch.labels
    if teacher is None:
        teacher = logits.detach().argmax(-1)
    if gold is not None and not gold.is_floating_point():
        gold = torch.where(gold == UNLABELLED, teacher, gold)
    return {target: target.resolve(logits, gold, teacher, batch.drawn) for target in targets}
