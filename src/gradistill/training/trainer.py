"""``DistillationTrainer``: the transformers Trainer with distillation objectives."""

from __future__ import annotations

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from inspect import Parameter, signature
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from gradistill.batch import Batch, RandomDraws
from gradistill.data.collator import mask_token_id_of
from gradistill.data.token_pool import token_pool
from gradistill.data.windows import TEXT
from gradistill.errors import TrainingError, first_line
from gradistill.models.attention import second_order_attention
from gradistill.models.device_map import placed
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, ModelFacts, Pair, Term
from gradistill.objectives.cross_tokenizer import check_cross_tokenizer_objectives
from gradistill.objectives.labelled_tokens import refuse_what_labels_no_tokens
from gradistill.objectives.low_precision_teacher import refuse_low_precision_gradients
from gradistill.objectives.term import refuse_no_conflict
from gradistill.recipe import ComputeSettings
from gradistill.signals.teacher import OnlineTeacher, TeacherSignals
from gradistill.training.arguments import check_arguments, check_metric, check_terms, refuse_smoothed_scores
from gradistill.training.gradient_check import check_second_order
from gradistill.training.gradient_conflict import GradientConflict
from gradistill.training.label_smoothing import smoothed
from gradistill.training.lazy_terms import correct_for_lazy_terms, drawn_for
from gradistill.training.projections import (
    averaged_over_processes,
    load_projections,
    projections_for,
    save_projections,
    trained_with,
)
from gradistill.training.sampler import SeededByEpoch
from gradistill.training.step import Step
from gradistill.training.trainer_checks import (
    checked_terms,
    refuse_kind,
    refuse_labels,
    refuse_missing_scores,
    refuse_other_outputs,
    refuse_other_pair,
    refuse_strange_classes,
    refuse_types,
)
from gradistill.training.training_start import TrainingStart
from gradistill.training.weight_average import WeightAverage

logger = logging.getLogger(__name__)

KEPT_COLUMNS = ("index", "word_ids", "special_tokens_mask")
"""Columns of the training data that a batch needs although the model's ``forward`` does not."""

CHECKED_ROWS = 4
"""Rows of the first batch that the start-up check runs on."""


def online_teacher(model: nn.Module, compute: ComputeSettings, probe: Probe | None = None) -> OnlineTeacher:
    """An online teacher that follows the ``compute`` settings. Without ``probe`` the model is probed here."""
    probed = ProbedModel.of(model, probe, trim_last_block=compute.trim_last_block)
    return OnlineTeacher(probed, share_views=compute.share_views)


@dataclass(frozen=True)
class _StepSettings:
    """The settings of a step without the student, which ``model_init`` may create again for each training."""

    terms: Sequence[Term]
    teacher: TeacherSignals | None
    teacher_facts: ModelFacts | None
    shared_embeddings: bool
    compute: ComputeSettings


class DistillationTrainer(Trainer):
    """A Trainer that trains ``model`` to match ``teacher`` by ``objectives``; everything else is the Trainer's.

    The first parameters are the Trainer's, in its order: ``model``, ``args``, ``data_collator``, ``train_dataset``, and
    so on. ``docs/training.md`` lists what differs.

    Parameters:
        ``model``: the student, a sequence classifier.
        ``teacher``: a sequence classifier (which is set to eval mode and frozen), or anything that returns signals
            (``TeacherSignals``, together with ``teacher_facts``); None if no objective needs one.
        ``objectives``: ``Term(objective, weight)`` or bare objectives of weight 1.
        ``teacher_facts``: labels, layers and widths of a teacher that is no model.
        ``shared_embeddings``: whether both models have one embedding layer, copied from teacher to student.
        ``compute``: how the loss is computed (``ComputeSettings`` of ``gradistill.recipe``).

    The loss is the sum of the weighted distances. Each is averaged over all examples of the optimizer step, in all
    accumulated batches and processes. Rows without a label (-100) do not count in the average of ``hard_label``.

    A ``Term(…, every=k)`` runs if ``global_step`` is a multiple of k. Learning rate and betas of an Adam that the
    Trainer creates are then corrected (``correct_for_lazy_terms``); an optimizer that you pass is not changed.
    Learned projections are part of the training (optimizer, checkpoints), not of the student.
    Evaluation uses the plain model and its own loss. With a gradient objective, the student uses eager attention, and
    its second-order gradient is checked before the first step.

    Raises RecipeError if an objective does not fit this pair. Raises TrainingError for an argument that cannot be
    applied, if second derivatives are missing, or when a term stops being finite.

    Example::

        trainer = DistillationTrainer(
            student, TrainingArguments("runs/student"), collator, rows, teacher=teacher,
            objectives=[HardLabel(), Term(SoftLabel(), 0.5)],
        )
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any = None,  # types are checked by ``refuse_types``, with a message
        *positional: Any,
        teacher: Any = None,
        objectives: Any = (),
        teacher_facts: ModelFacts | None = None,
        shared_embeddings: bool = True,
        compute: ComputeSettings = ComputeSettings(),  # noqa: B008 (frozen)
        **named: Any,
    ) -> None:
        given = signature(Trainer.__init__).bind(self, model, *positional, **named).arguments
        given.pop("self")
        args = given.get("args")
        refuse_types(given, teacher)
        terms = checked_terms(objectives, teacher)
        if compute.splits_gradients:
            refuse_no_conflict(terms, compute.gradient_conflict)
        if isinstance(args, TrainingArguments):
            check_arguments(args)
            check_terms(args, terms, compute)
            check_metric(args, given)
            given["args"] = copy.copy(args)  # the caller's object is not changed
        with _no_new_folder(args):
            super().__init__(**given)
            self._train_on_one_device()
            self.model_accepts_loss_kwargs = True  # as loss_is_scaled_for_ga, before transformers had it
            if isinstance(teacher, nn.Module):
                refuse_kind("teacher", teacher)
                teacher = online_teacher(placed(teacher, self.args.device), compute)
            if teacher_facts is None and isinstance(teacher, OnlineTeacher):
                teacher_facts = teacher.probe
            terms = smoothed(terms, self.args.label_smoothing_factor)
            self._plan = _StepSettings(terms, teacher, teacher_facts, shared_embeddings, compute)
            self._accumulated = count()
            self._rows: list[Tensor] = []
            self._held: list[Any] = []
            self._start: TrainingStart | None = None
            self._given: tuple[Any, Any] = (None, None)
            self._logged = defaultdict[str, Tensor](partial(torch.zeros, 3, device=self.args.device))
            self._build_step(self.model)
            if self.step.second_order:
                self._refuse_what_loses_gradients("a gradient objective")
            elif compute.splits_gradients:
                self._refuse_what_loses_gradients(f"compute.gradient_conflict: {compute.gradient_conflict}")
            self._refuse_what_cannot_train()

    def _build_step(self, student: Any) -> None:
        """Build the step for a student. Projections are initialised from the seed, like weights of ``model_init``."""
        plan = self._plan
        refuse_kind("model", student)
        probed = ProbedModel.of(student, trim_last_block=plan.compute.trim_last_block)
        pair = Pair(probed.probe, plan.teacher_facts or probed.probe, plan.shared_embeddings)
        refuse_other_pair(pair)
        if isinstance(plan.teacher, OnlineTeacher):
            refuse_other_outputs(student, plan.teacher.model, pair, plan.terms)
            refuse_low_precision_gradients(plan.terms, pair, plan.teacher.model)
        check_cross_tokenizer_objectives(plan.terms, pair)
        refuse_what_labels_no_tokens(plan.terms, pair)
        for term in plan.terms:
            term.objective.check(pair)
        if pair.regression or pair.student.multi_label:
            refuse_smoothed_scores(self.args)
        dtype = next(student.parameters()).dtype
        wide = torch.promote_types(dtype, torch.float32)  # the dtype of the signals
        projections = projections_for(plan.terms, pair, self.args.seed).to(self.args.device, wide)
        self.step = Step(plan.terms, pair, probed, plan.teacher, plan.compute.share_views, projections)
        self._student, self._checked = student, False
        self._conflict = GradientConflict(plan.compute, self.accelerator, self._trained)

    def _train_on_one_device(self) -> None:
        """Prevent nn.DataParallel, which the Trainer uses when it sees several devices. Hooks and inner gradients fail
        in its replicas, and batches would be larger than the arguments define."""
        if (devices := self.args.n_gpu) > 1:
            logger.warning(
                f"{devices} devices are available, and this process trains on one, {self.args.device}: "
                f"torchrun --nproc-per-node {devices} trains on all of them (docs/several_machines.md)"
            )
            arguments: Any = self.args
            arguments._n_gpu = 1
            self._train_batch_size = arguments.train_batch_size

    def _refuse_what_loses_gradients(self, under: str) -> None:
        wrappers = {
            "FSDP (the inner backward reshards the parameters)": self.is_fsdp_enabled,
            "DeepSpeed": self.is_deepspeed_enabled,
        }
        for name, on in wrappers.items():
            if on:
                raise TrainingError(
                    f"{name} is enabled for a student under {under}",
                    expected="one process for each device (DDP), or a single device",
                    remedy="start with torchrun or accelerate launch, without FSDP or DeepSpeed for the student",
                )
        if self.args.gradient_checkpointing:
            arguments: Any = self.args
            options = {**(arguments.gradient_checkpointing_kwargs or {}), "use_reentrant": False}
            arguments.gradient_checkpointing_kwargs = options
            arguments.activation_checkpointing_kwargs = options  # the newer name

    def _refuse_what_cannot_train(self) -> None:
        if self.lr_scheduler is not None and len(self.step.projections):
            raise TrainingError(
                "optimizers contains a schedule, which does not cover the projections that the objectives learn",
                expected="None in place of the schedule",
                remedy="pass optimizers=(optimizer, None) and choose TrainingArguments.lr_scheduler_type",
            )
        if steps := self._steps():
            for term in self.step.terms:
                _check_turns(term, steps)
        for term in self.step.terms:
            if not self._sized and getattr(term.objective, "anneal", False):
                raise TrainingError(
                    f"{term.name} anneals over the epochs, and an iterable dataset has no number of epochs",
                    expected="data with a length, or a constant temperature",
                    remedy="leave anneal out, or pass a datasets.Dataset",
                )
        rows: Any = self.train_dataset
        needed = self.args.train_batch_size * self.args.world_size
        if self.args.dataloader_drop_last and hasattr(rows, "__len__") and len(rows) < needed:
            raise TrainingError(
                f"TrainingArguments.dataloader_drop_last is True, and {len(rows)} rows fill no batch of {needed}",
                expected="at least one whole batch",
                remedy="leave it out, or lower the batch size",
            )

    @property
    def _sized(self) -> bool:
        """Whether the training data have a length; a stream has none."""
        return hasattr(self.train_dataset, "__len__")

    def _steps(self) -> int | None:
        """The number of optimizer steps of the training; None for a dataset without a length."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        if not self._sized:
            return None
        rows = self.args.train_batch_size * self.args.world_size
        rounded = math.floor if self.args.dataloader_drop_last else math.ceil
        batches = rounded(len(self.train_dataset) / rows)  # pyright: ignore[reportArgumentType]
        of_an_epoch = max(1, math.ceil(batches / self.args.gradient_accumulation_steps))
        return math.ceil(of_an_epoch * self.args.num_train_epochs)

    def _refuse_unknown_place(self, checkpoint: Path) -> None:
        """Raise TrainingError if training cannot resume at the row at which a checkpoint was written."""
        state = checkpoint / TRAINER_STATE_NAME
        if self._sized or self.args.ignore_data_skip or not state.is_file():
            return
        passes = TrainerState.load_from_json(str(state)).epoch or 0.0
        if passes > 1:
            raise TrainingError(
                f"the training data have no length, and {checkpoint} is from pass {int(passes) + 1} over them: the row "
                "at which to resume is unknown",
                expected="data with a length, or a checkpoint of the first pass",
                remedy="pass a datasets.Dataset, or set ignore_data_skip=True to start with the first row",
            )

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().init_hf_repo(*args, **kwargs)
        except Exception as error:  # from httpx, huggingface_hub or the file system
            raise TrainingError(
                f"TrainingArguments.push_to_hub is True, and the hub cannot be used: {first_line(error)}",
                expected="a connection, and a token that may write",
                remedy="log in (hf auth login), or leave push_to_hub out and upload the finished folder",
            ) from error

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        ours = self.optimizer is None and self.optimizer_cls_and_kwargs is None
        optimizer = super().create_optimizer(*args, **kwargs)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if new := [p for p in self.step.projections.parameters() if id(p) not in known]:
            optimizer.add_param_group({"params": new})  # an optimizer that the caller passed lacks them
        if ours:
            correct_for_lazy_terms(optimizer, max(term.every for term in self.step.terms))
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, with the parameters and the result of ``Trainer.train``."""
        self._start = None
        self._logged.clear()
        return super().train(*args, **kwargs)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loop. At this point ``model_init`` has created the student, and a checkpoint is loaded.
        ``auto_find_batch_size`` calls it for each batch size; each attempt starts from the same state."""
        if self.model is not self._student:
            self._build_step(self.model)
        student: Any = self.model
        if self.args.auto_find_batch_size:
            self._begin_attempt(student)
        if self._averages and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise TrainingError(
                "FSDP or DeepSpeed is enabled with a WeightAverage, which needs all weights in each process",
                expected="one process for each device (DDP), or a single device",
                remedy="start with torchrun or accelerate launch without FSDP or DeepSpeed, or leave the average out",
            )
        checkpoint = kwargs.get("resume_from_checkpoint")
        self._held = []
        self._conflict = GradientConflict(self._plan.compute, self.accelerator, self._trained)
        if checkpoint:
            self._refuse_unknown_place(Path(checkpoint))
            load_projections(self.step.projections, Path(checkpoint))
            self._conflict.load(Path(checkpoint))
            for average in self._averages:
                average.load(Path(checkpoint))
        attention = second_order_attention(student) if self.step.second_order else nullcontext()
        with attention, trained_with(student, self.step.projections):
            return super()._inner_training_loop(*args, **kwargs)

    def _begin_attempt(self, student: nn.Module) -> None:
        if self._start is None:
            self._given = (self.optimizer, self.lr_scheduler)
            passed = [each for each in self._given if each is not None]
            self._start = TrainingStart.of([student, self.step.projections, *passed])
            return
        self._logged.clear()
        self._start.restore()
        self.optimizer, self.lr_scheduler = self._given

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Skip the epoch if training had stopped early before this checkpoint. An epoch that only held batches back for
        the next one does not end training."""
        if self.control.should_training_stop:
            return
        before = self.state.global_step
        super()._run_epoch(*args, **kwargs)
        if self._held and self.state.global_step == before:
            self.control.should_training_stop = False

    @property
    def batch_size(self) -> int:
        """Rows in a batch: from the arguments, or the size that fits into memory (``auto_find_batch_size``)."""
        return self._train_batch_size

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
        """Save a new best model at once if the best is loaded at the end: there may be no other checkpoint of it."""
        best = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= best and self.args.load_best_model_at_end
        return best

    @property
    def _averages(self) -> list[WeightAverage]:
        return [each for each in self.callback_handler.callbacks if isinstance(each, WeightAverage)]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the training state for resuming, including projections, comparisons and weight averages."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            save_projections(self.step.projections, Path(output_dir))
            self._conflict.save(Path(output_dir))
            for average in self._averages:
                average.save(Path(output_dir))

    def _set_signature_columns_if_needed(self) -> None:
        """Keep row numbers, by which stored signals are looked up, and word ids for the collator."""
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns += [name for name in KEPT_COLUMNS if name not in columns]

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        numbered = "index" not in dataset.column_names or "int" in str(dataset.features["index"])
        if self.args.remove_unused_columns and not numbered:
            dataset = dataset.remove_columns("index")  # a column of this name without row numbers
        return super()._remove_unused_columns(dataset, description)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's sampler, with an order that depends on the seed and the epoch's number alone.

        The Trainer draws from the global generator, whose state differs in a resumed run and in each process. Rows are
        grouped by length over the optimizer step of all processes, so that steps do not depend on their number.
        """
        sampler: Any = super()._get_train_sampler(*args, **kwargs)
        if isinstance(sampler, LengthGroupedSampler):
            of_a_step = (
                self._train_batch_size * self.args.gradient_accumulation_steps
            )  # the size of this attempt
            sampler.batch_size = of_a_step * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if not hasattr(sampler, "generator"):
            with_seed: Any = sampler
            if hasattr(with_seed, "seed"):  # batch_rebalance draws from it and the epoch's number
                with_seed.seed = seed
            return sampler
        return SeededByEpoch(sampler, seed, lambda: int(self.state.epoch or 0))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The Trainer's loader. Windows of a text keep their order: their predictions are pooled for the metrics."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if TEXT not in (getattr(rows, "column_names", None) or ()):
            return super().get_eval_dataloader(eval_dataset)
        before, self.args.train_sampling_strategy = self.args.train_sampling_strategy, "sequential"
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.train_sampling_strategy = before

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of one optimizer step, and their total numbers of examples, real tokens, words and labels."""
        self._accumulated, self._rows = count(), []
        self._conflict.reset()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches - len(self._held), device)
        batches, self._held = [*self._held, *batches], []
        if len(batches) < num_batches and not self._sized:
            # The Trainer takes no step on these. They are held back for the next pass.
            batches, self._held = [], batches
        if not batches:
            return batches, None
        self._rows = [batch["index"] for batch in batches if "index" in batch]
        counts: Any = 0
        for read in map(self._read, batches):
            refuse_strange_classes(read, self.step.pair.student, self.step.terms)
            counts = counts + _counts(read).to(device)
        gathered: Any = self.accelerator.gather(counts[None])  # pyright: ignore[reportIndexIssue]
        return batches, gathered.sum(0)

    def _read(self, inputs: Mapping[str, Any]) -> Batch:
        """A batch to train on. Raises TrainingError for one that the objectives cannot learn from."""
        batch = Batch.of(inputs, **self._replacements)
        refuse_labels(batch, self.step.pair.student)
        refuse_missing_scores(batch, self.step.terms)
        if "input_ids" not in batch.inputs:
            affected = [
                t.name for t in self.step.terms if t.objective.needs_teacher or t.objective.second_order
            ]
            if affected:
                raise TrainingError(
                    f"a batch has inputs_embeds and no input_ids, which {' and '.join(affected)} cannot use",
                    expected="input_ids: teacher and gradients start from tokens",
                    remedy="let the collator return input_ids, or train with hard_label alone",
                )
        return batch

    @cached_property
    def _replacements(self) -> dict[str, Any]:
        """What can replace a token: the mask token, and tokens of the training data if an objective replaces words."""
        replaced = any(signal.replaces_words for signal in self.step.signals("student"))
        pool = token_pool(self.train_dataset) if replaced else None
        return {
            "mask_token_id": mask_token_id_of(self.data_collator),
            "token_pool": None if pool is None else pool.to(self.args.device),
            "reader": getattr(self.data_collator, "reader", None),
        }

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not self._checked:
            self._check(model, inputs)
        with self._conflict.step():
            loss = super().training_step(model, inputs, *args, **kwargs)
        averaged_over_processes(self.step.projections, self.accelerator)
        return loss

    def _trained(self) -> list[nn.Parameter]:
        """The student's trained parameters, without projections."""
        student: Any = self.model
        projections = set(self.step.projections.parameters())
        return [p for p in student.parameters() if p.requires_grad and p not in projections]

    def _check(self, model: nn.Module, inputs: Any) -> None:
        """Check on the first rows whether the last block may be trimmed, and the second-order gradient."""
        student = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        tensors = {k: v for k, v in self._prepare_inputs(inputs).items() if isinstance(v, Tensor)}
        facts = self.step.pair.student
        batch = Batch.of(
            {k: v[:CHECKED_ROWS] for k, v in tensors.items()},
            multi_label=facts.multi_label,
            token_labels=facts.token_labels,
        )
        probe = self.step.student.verified(batch)
        if self.step.second_order:
            model.train()
            check_second_order(student, probe, batch, self.step.signals("student"))
        self._checked = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted sum of all distances in training; the Trainer's loss in evaluation.

        With ``return_outputs`` also a ``SequenceClassifierOutput`` of loss and logits.
        """
        if not model.training:
            labelled = {"labels": inputs["labels"]} if "labels" in inputs else {}
            # With a count the Trainer multiplies by the number of processes, also the mean of a model that ignores it.
            return super().compute_loss(model, {**Batch.of(inputs).inputs, **labelled}, return_outputs)
        batch = self._read(inputs)
        counts = num_items_in_batch
        if not isinstance(counts, Tensor) or counts.shape != (4,):
            counts = _counts(batch)
        examples, tokens, words, labels = counts.to(batch.mask.device)
        batch = replace(
            batch,
            tokens_per_example=tokens / examples,
            words_per_example=words / examples,
            labels_per_example=labels / examples,
            drawn=self._drawn(batch),
        )
        progress = self.state.global_step / max(self.state.max_steps, 1)
        terms = self.step.running(self.state.global_step, progress)
        distances, logits = self.step.distances(model, batch, self._epoch_progress(), terms)
        self._refuse_non_finite(distances, batch)
        weights = {term.name: term.weight_at(progress) for term in terms}
        means = {term.name: weights[term.name] / term.every for term in terms}
        self._accumulate_logs(distances, means, examples)

        def averaged(names: Iterable[str], factors: Mapping[str, float] = weights) -> Tensor:
            # DDP averages gradients over processes, and `examples` counts the examples of all processes.
            total = torch.stack([factors[name] * distances[name].sum() for name in names]).sum()
            return total / examples * self.accelerator.num_processes

        staged = [term for term in self.step.terms if term.in_stage(progress)]
        self._conflict.compare(partial(averaged, factors=means), terms, staged, self.state.global_step)
        loss = self._conflict.loss(averaged, terms)
        return (loss, SequenceClassifierOutput(loss=loss, logits=logits)) if return_outputs else loss  # pyright: ignore[reportArgumentType]

    @property
    def gradient_balance(self) -> dict[str, Any] | None:
        """The length of the gradient objectives' gradient relative to the prediction losses' gradient.

        ``ratios`` holds the compared steps, ``ratio`` their median. ``capped_from_step`` is the optimizer step (from 0)
        from which the rule ``auto`` caps the gradient. None if nothing was compared.
        """
        return self._conflict.record

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        known = {**Batch.of(inputs).inputs}
        if inputs.get("labels") is not None:
            refuse_labels(Batch.of(inputs), self.step.pair.student)
            known["labels"] = inputs["labels"]
        return super().prediction_step(model, known, prediction_loss_only, ignore_keys)

    def _drawn(self, batch: Batch) -> RandomDraws:
        """Random draws for a batch, seeded so that a resumed run draws the same as an uninterrupted one."""
        numbers = (self.args.seed, self.args.process_index, self.state.global_step, next(self._accumulated))
        return drawn_for(batch, self.step.pair.student.labels, *numbers, epoch=self._epoch_progress().epoch)

    def _epoch_progress(self) -> EpochProgress:
        epochs = max(1, self.state.num_train_epochs)  # not the argument, which max_steps overrides
        return EpochProgress(min(int(self.state.epoch or 0), epochs - 1), epochs)

    def _refuse_non_finite(self, distances: dict[str, Tensor], batch: Batch) -> None:
        finite = torch.stack([values.detach() for values in distances.values()]).isfinite()
        if bool(finite.all()):
            return
        names = [name for name, row in zip(distances, finite, strict=True) if not row.all()]
        positions = (~finite.all(0)).nonzero().flatten()
        rows = positions if batch.index is None else batch.index[positions]
        raise self._not_finite(" and ".join(names), rows.tolist())

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """The gradient norm, computed before each optimizer step. Raises TrainingError if it is not finite, as the step
        would spoil every weight. A gradient scaler (float16) skips such steps itself."""
        norm: Any = super()._get_grad_norm(*args, **kwargs)
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            named = " and ".join(term.name for term in self.step.terms)
            rows = [row for index in self._rows for row in index.tolist()]
            raise self._not_finite(f"the gradient of {named}", rows)
        return norm

    def _not_finite(self, what: str, rows: Sequence[int]) -> TrainingError:
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        place = Path(self.args.output_dir or "")
        kept = (
            f"; the last checkpoint in {place} is intact"
            if any(place.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
            else ""
        )
        return TrainingError(
            f"{what} stopped being finite at step {self.state.global_step}, in rows {list(rows[:8])}{more} of the "
            "training data",
            expected="finite values of every term, and a finite gradient",
            remedy=f"lower the learning rate or the term's weight, use float32, and inspect these rows{kept}",
        )

    def _accumulate_logs(
        self, distances: dict[str, Tensor], weights: Mapping[str, float], examples: Tensor
    ) -> None:
        """Add up each term's distances, plain and weighted, and the share of the optimizer step's examples that they
        cover: batches differ in size, and a term may skip steps. Sums stay on the device until they are logged."""
        for name, values in distances.items():
            total, rows = values.detach().sum(), torch.ones_like(values).sum()
            self._logged[name] += torch.stack([total, weights[name] * total, rows]).float() / examples

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the loss and each term's mean over the steps since the last log on which it ran, over all processes.

        ``raw/…`` is the plain distance, ``weighted/…`` is multiplied by the term's average weight over all steps.
        """
        if "loss" in logs and self._logged:
            ours = torch.stack([self._logged[term.name] for term in self.step.terms])
            everywhere: Any = self.accelerator.reduce(ours, "sum")
            for term, (raw, weighted, steps) in zip(self.step.terms, everywhere.tolist(), strict=True):
                if steps:
                    logs[f"raw/{term.name}"] = raw / steps
                    logs[f"weighted/{term.name}"] = weighted / steps
            self._logged.clear()
            logs |= self._conflict.logged()
        super().log(logs, *args, **kwargs)


def _counts(batch: Batch) -> Tensor:
    """The numbers of examples, real tokens, words and labels in a batch."""
    counted = (batch.mask, batch.first_tokens, batch.labelled())
    return torch.stack([torch.tensor(len(batch)), *(each.sum().cpu() for each in counted)])


@contextmanager
def _no_new_folder(args: Any) -> Iterator[None]:
    """On an error inside the block, remove empty output folders that the Trainer created."""
    folder = Path(str(args.output_dir if isinstance(args, TrainingArguments) else "tmp_trainer"))
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def _like_the_trainers() -> Any:
    """The signature for ``help`` and editors: the Trainer's parameters, then ours as keywords."""
    ours = signature(DistillationTrainer.__init__).parameters.values()
    keywords = [p for p in ours if p.kind is Parameter.KEYWORD_ONLY]
    trainers = signature(Trainer.__init__)
    return trainers.replace(parameters=[*trainers.parameters.values(), *keywords])


DistillationTrainer.__init__.__signature__ = _like_the_trainers()  # pyright: ignore[reportFunctionMemberAccess]


def _check_turns(term: Term, steps: int) -> None:
    """Raise TrainingError for a term that never runs in ``steps`` steps. Warn if ``every`` exceeds its stage."""
    if not term.ever_runs(steps):
        raise TrainingError(
            f"objectives.{term.name} would never run: every {term.every} steps, from {term.start:.0%} to "
            f"{term.end:.0%} of the {steps} steps",
            expected="a step on which it runs",
            remedy="lower every, change start and end, or leave the objective out",
        )
    if term.every > (stage := term.steps_of_stage(steps)):
        logger.warning(
            f"objectives.{term.name} runs every {term.every} steps, and its stage has {stage} steps: it runs once, "
            f"with {term.every} times its weight. Lower every"
        )
