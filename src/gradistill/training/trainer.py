"""``DistillationTrainer``: the transformers Trainer with objectives, and nothing that its users know taken away."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from gradistill.errors import TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.models.dropping import packed_dropout
from gradistill.models.probe import Probe
from gradistill.objectives import Moment, Objective, Pair, Term
from gradistill.objectives._contract import ModelFacts
from gradistill.objectives._term import refuse_idle_steps
from gradistill.recipe import ComputeSettings
from gradistill.signals.teacher import OnlineTeacher, TeacherSignals
from gradistill.training.amortising import correct_for_lazy_terms, drawn_for
from gradistill.training.ordering import SeededByEpoch
from gradistill.training.projections import averaged_over_processes, projections_for, trained_with
from gradistill.training.second_order import check_second_order
from gradistill.training.step import Step
from gradistill.types import Batch, Drawn

CHECKED_ROWS = 4
"""Rows of the first batch that the start-up check runs on."""


def facts(probe: Probe) -> ModelFacts:
    return ModelFacts(
        probe.layers, probe.width, probe.labels, probe.heads, probe.attention_width, probe.full_length
    )


def probe_for(model: nn.Module, compute: ComputeSettings) -> Probe:
    probe = Probe.find(model)
    return probe if compute.trim_last_block else replace(probe, trim=None)


def online_teacher(model: nn.Module, compute: ComputeSettings) -> OnlineTeacher:
    return OnlineTeacher(model, probe_for(model, compute), share_views=compute.share_views)


class DistillationTrainer(Trainer):
    """Trains ``model`` to be near ``teacher`` by ``objectives``; everything else is the Trainer's own.

    ``teacher`` is a sequence classifier (set to eval mode and taken out of every graph) or anything that answers
    requests (``TeacherSignals``, then with ``teacher_facts``); None where no objective needs one.
    ``objectives`` are ``Term(objective, weight)`` or bare objectives of weight 1. The loss is the sum of the weighted
    distances, each averaged over all examples of the optimizer step: accumulated batches and all processes.
    A ``Term(…, every=k)`` runs where ``global_step`` is a multiple of k. Learning rate and betas of an Adam that the
    Trainer creates are then corrected (``correct_for_lazy_terms``); an optimizer that is handed in is not touched.
    Projections that objectives learn are part of the model while it trains (optimizer, checkpoints), and gone behind
    it. Evaluation is the plain model's. While a gradient objective is on, the student has eager attention and its
    second-order gradient is checked before the first step.

    Raises RecipeError where an objective cannot apply to this pair, TrainingError where the set-up has no second
    derivative or a term stops being finite.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        teacher: nn.Module | TeacherSignals | None = None,
        objectives: Sequence[Term | Objective] = (),
        *args: Any,
        teacher_facts: ModelFacts | None = None,
        shared_embeddings: bool = True,
        compute: ComputeSettings = ComputeSettings(),  # noqa: B008 (frozen)
        **kwargs: Any,
    ) -> None:
        super().__init__(model, *args, **kwargs)
        # The row number must reach the collator; Batch.of keeps from the model what it does not know.
        self.args.remove_unused_columns = False
        self.model_accepts_loss_kwargs = True  # the same as loss_is_scaled_for_ga, before transformers had it
        terms = [term if isinstance(term, Term) else Term(term) for term in objectives]
        self.step = self._build_step(terms, teacher, teacher_facts, shared_embeddings, compute)
        self._checked = False
        self._accumulated = count()
        self._rows: list[Tensor] = []
        self._logged = defaultdict[str, Tensor](partial(torch.zeros, 2, device=self.args.device))

    def _build_step(
        self,
        terms: Sequence[Term],
        teacher: nn.Module | TeacherSignals | None,
        teacher_facts: ModelFacts | None,
        shared_embeddings: bool,
        compute: ComputeSettings,
    ) -> Step:
        if not terms or (teacher is None and any(term.objective.needs_teacher for term in terms)):
            missing = "objectives" if not terms else "a teacher"
            raise TrainingError(
                f"{missing} did not come", expected="objectives, and a teacher for those that need one",
                remedy="pass objectives=[…] and teacher=…",
            )  # fmt: skip
        refuse_idle_steps(terms)
        student: Any = self.model
        probe = probe_for(student, compute)
        if isinstance(teacher, nn.Module):
            online = online_teacher(teacher.to(self.args.device), compute)
            teacher, teacher_facts = online, facts(online.probe)
        pair = Pair(facts(probe), teacher_facts or facts(probe), shared_embeddings)
        for term in terms:
            term.objective.check(pair)
        own = next(student.parameters()).dtype
        wide = torch.promote_types(own, torch.float32)  # as what goes through them
        projections = projections_for(terms, pair).to(self.args.device, wide)
        step = Step(terms, pair, probe, teacher, compute.share_views, projections)
        if step.second_order:
            self._refuse_what_loses_gradients()
        return step

    def _refuse_what_loses_gradients(self) -> None:
        wrappers = {
            "FSDP (the inner backward reshards the parameters)": self.is_fsdp_enabled,
            "DeepSpeed": self.is_deepspeed_enabled,
            "nn.DataParallel over several devices in one process": self.args.n_gpu > 1,
        }
        for name, on in wrappers.items():
            if on:
                raise TrainingError(
                    f"{name} came for a student under a gradient objective",
                    expected="one process a device: DDP, or a single device",
                    remedy="start with torchrun or accelerate launch, without FSDP or DeepSpeed for the student",
                )
        if self.args.gradient_checkpointing:
            arguments: Any = self.args
            options = {**(arguments.gradient_checkpointing_kwargs or {}), "use_reentrant": False}
            arguments.gradient_checkpointing_kwargs = options
            arguments.activation_checkpointing_kwargs = options  # the newer name

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        ours = self.optimizer is None and self.optimizer_cls_and_kwargs is None
        optimizer = super().create_optimizer(*args, **kwargs)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if new := [p for p in self.step.projections.parameters() if id(p) not in known]:
            optimizer.add_param_group({"params": new})  # one that was handed in cannot know them
        if ours:
            correct_for_lazy_terms(optimizer, max(term.every for term in self.step.terms))
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        student: Any = self.model
        attention = second_order_attention(student) if self.step.second_order else nullcontext()
        with attention, packed_dropout(student), trained_with(student, self.step.projections):
            return super().train(*args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's sampler, with the order of each epoch drawn from the seed and the epoch's number alone: its own
        comes from the global generator, which a resumed run has in another state, and each process too. Rows are
        grouped for a step of all processes, so that several take the steps that one takes."""
        sampler: Any = super()._get_train_sampler(*args, **kwargs)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.batch_size *= self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if not hasattr(sampler, "generator"):
            return sampler
        return SeededByEpoch(sampler, seed, lambda: int(self.state.epoch or 0))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one optimizer step, and how many examples and real tokens they hold in all."""
        self._accumulated, self._rows = count(), []
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        masks = [Batch.of(batch).mask for batch in batches]
        self._rows = [batch["index"] for batch in batches if "index" in batch]
        counts = torch.tensor(
            [[sum(len(mask) for mask in masks), sum(int(mask.sum()) for mask in masks)]], device=device
        )
        gathered: Any = self.accelerator.gather(counts)
        return batches, gathered.sum(0)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        if not self._checked:
            self._check(model, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        averaged_over_processes(self.step.projections, self.accelerator)
        return loss

    def _check(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """On the first rows: whether the last block may be trimmed, and the second-order gradient."""
        student = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        batch = Batch.of({k: v[:CHECKED_ROWS] for k, v in self._prepare_inputs(inputs).items()})
        self.step = replace(self.step, student_probe=self.step.student_probe.verified(student, batch))
        if self.step.second_order:
            model.train()
            check_second_order(student, self.step.student_probe, batch, self.step.requests("student"))
        self._checked = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if not model.training:
            plain = {**Batch.of(inputs).inputs, "labels": inputs["labels"]}
            return super().compute_loss(model, plain, return_outputs)
        batch = Batch.of(inputs)
        if batch.labels is None:
            raise TrainingError(
                "a batch without labels came", expected="a column 'labels' in the training data",
                remedy="rename the label column to 'labels', or use gradistill.data.encode",
            )  # fmt: skip
        counts = num_items_in_batch
        if not isinstance(counts, Tensor) or counts.numel() != 2:
            counts = torch.tensor([len(batch), int(batch.mask.sum())], device=batch.mask.device)
        examples, tokens = counts.to(batch.mask.device)
        batch = replace(batch, tokens_per_example=tokens / examples, drawn=self._drawn(batch))
        progress = self.state.global_step / max(self.state.max_steps, 1)
        step = self.step.at(self.state.global_step, progress)
        distances, logits = step.distances(model, batch, self._moment())
        self._refuse_non_finite(distances, batch)
        self._remember(distances, examples)
        weights = {term.name: term.weight_at(progress) for term in step.terms}
        total = torch.stack([weights[name] * values.sum() for name, values in distances.items()]).sum()
        # Gradients are averaged over processes, and `examples` counts those of all of them.
        loss = total / examples * self.accelerator.num_processes
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        known = {**Batch.of(inputs).inputs}
        if "labels" in inputs:
            known["labels"] = inputs["labels"]
        return super().prediction_step(model, known, prediction_loss_only, ignore_keys)

    def _drawn(self, batch: Batch) -> Drawn:
        """Of a seed, so that a resumed run draws as one that was not interrupted."""
        numbers = (self.args.seed, self.args.process_index, self.state.global_step, next(self._accumulated))
        return drawn_for(batch, self.step.pair.student.labels, *numbers)

    def _moment(self) -> Moment:
        epochs = max(1, self.state.num_train_epochs)  # not the argument: max_steps has the last word
        return Moment(min(int(self.state.epoch or 0), epochs - 1), epochs)

    def _refuse_non_finite(self, distances: dict[str, Tensor], batch: Batch) -> None:
        finite = torch.stack([values.detach() for values in distances.values()]).isfinite()
        if bool(finite.all()):
            return
        names = [name for name, row in zip(distances, finite, strict=True) if not row.all()]
        at = (~finite.all(0)).nonzero().flatten()
        rows = at if batch.index is None else batch.index[at]
        raise self._not_finite(" and ".join(names), rows.tolist())

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer asks for it before each step of the optimizer, which a gradient that is not finite would make
        spoil every weight. A gradient scaler (float16) passes over such steps by itself."""
        norm: Any = super()._get_grad_norm(*args, **kwargs)
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            named = " and ".join(term.name for term in self.step.terms)
            rows = [row for index in self._rows for row in index.tolist()]
            raise self._not_finite(f"the gradient of {named}", rows)
        return norm

    def _not_finite(self, what: str, rows: Sequence[int]) -> TrainingError:
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return TrainingError(
            f"{what} stopped being finite at step {self.state.global_step}, in rows {list(rows[:8])}{more} of the "
            "training data",
            expected="finite values of every term, and a finite gradient",
            remedy="lower the learning rate or the term's weight, use float32, and look at these rows; "
            f"the last checkpoint in {self.args.output_dir} is intact",
        )

    def _remember(self, distances: dict[str, Tensor], examples: Tensor) -> None:
        """Sums over the examples of this process, and the share of the optimizer step that it is: batches may differ
        in size, and a term need not run at every step. They stay on the device until they are logged."""
        for name, values in distances.items():
            ones = torch.ones_like(values)
            self._logged[name] += torch.stack([values.detach().sum(), ones.sum()]).float() / examples

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Beside the loss, the mean of every term over the steps since the last time on which it ran, in all
        processes: raw, and weighted (by ``weight``, the mean over all steps)."""
        if "loss" in logs and self._logged:
            ours = torch.stack([self._logged[term.name] for term in self.step.terms])
            everywhere: Any = self.accelerator.reduce(ours, "sum")
            for term, (raw, steps) in zip(self.step.terms, everywhere.tolist(), strict=True):
                if steps:
                    logs[f"raw/{term.name}"] = raw / steps
                    logs[f"weighted/{term.name}"] = raw / steps * term.weight
            self._logged.clear()
        super().log(logs, *args, **kwargs)
