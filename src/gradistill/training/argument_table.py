"""How each argument of transformers' TrainingArguments is handled: applied, or refused by name before any work.

``run`` refers to the arguments of a recipe (``training.arguments``), ``trainer`` to TrainingArguments that a caller
passes to DistillationTrainer. A test compares the table with the installed transformers; ``docs/training.md`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Refusal:
    """Why a value other than transformers' default is refused, and what to do instead."""

    why: str
    instead: str


@dataclass(frozen=True)
class Handling:
    """One argument. Without a refusal it is applied as the Trainer applies it; ``note`` is what else happens.

    A number below ``least`` is refused. ``choices`` are all allowed values.
    """

    note: str = ""
    run: Refusal | None = None
    trainer: Refusal | None = None
    least: int | None = None
    choices: tuple[str, ...] = ()


APPLIED = Handling()


def _both(why: str, instead: str) -> Handling:
    refusal = Refusal(why, instead)
    return Handling(run=refusal, trainer=refusal)


def _run(why: str, instead: str, note: str = "") -> Handling:
    return Handling(note, run=Refusal(why, instead))


OWN_NAMES = {
    "per_device_train_batch_size": "batch_size", "num_train_epochs": "epochs", "learning_rate": "learning_rate",
}  # fmt: skip
"""Arguments that a recipe has a field for, and the name of that field."""


def _own(name: str, least: int) -> Handling:
    """An argument that overrides a recipe's own field, which a run then logs."""
    return Handling(f"overrides the recipe field `training.{OWN_NAMES[name]}`", least=least)


_RESUMED = "an interrupted run could not resume where it stopped"
_UPLOAD = _run(
    "a run leaves a model folder and does not upload it",
    "leave it out, and upload the finished folder: gradistill push FOLDER REPO",
)
_SHARDED = _run(
    "a run writes the student from one process, which needs all weights",
    "leave it out: torchrun trains on several devices with one copy of the student on each",
    note="refused under a gradient objective, under `gradient_conflict`, and with a `WeightAverage`",
)
_LIGER = _both("fused kernels of Liger have no second derivative", "leave it out")
_SCRIPTS = _run("the Trainer does not read it: it is for scripts of your own", "leave it out")
_LOGGERS = Handling("read by the loggers that `report_to` names")

_TABLE: dict[str, Handling] = {
    "output_dir": _run("the run's folder is not part of a recipe", "pass the folder as --output"),
    "per_device_train_batch_size": _own("per_device_train_batch_size", 1),
    "num_train_epochs": _own("num_train_epochs", 0),
    "max_steps": Handling("0 is refused"),
    "learning_rate": _own("learning_rate", 0),
    "lr_scheduler_type": Handling(
        "validated before training starts; in a run one that watches a metric follows its direction"
    ),
    "lr_scheduler_kwargs": Handling("validated before training starts"),
    "warmup_steps": Handling(least=0),
    "optim": Handling(
        "validated before training starts: a missing package is refused. Refused: optimizers that step within the "
        "backward pass"
    ),
    "optim_args": Handling("validated before training starts"),
    "weight_decay": Handling(least=0),
    "adam_beta1": Handling("raised to a power for objectives that run every k steps", least=0),
    "adam_beta2": Handling("raised to a power for objectives that run every k steps", least=0),
    "adam_epsilon": Handling(least=0),
    "optim_target_modules": APPLIED,
    "gradient_accumulation_steps": Handling("averages are over all rows of the optimizer step", least=1),
    "average_tokens_across_devices": _both("averages are over the rows of all devices, always", "leave it out"),
    "max_grad_norm": Handling(least=0),
    "label_smoothing_factor": Handling(
        "applied to `hard_label` by the Trainer's formula. Refused without that objective, and in a regression", least=0
    ),
    "bf16": APPLIED,
    "fp16": APPLIED,
    "bf16_full_eval": _run("a run evaluates in the precision that it trains in", "use bf16"),
    "fp16_full_eval": _run("a run evaluates in the precision that it trains in", "use fp16"),
    "tf32": APPLIED,
    "activation_checkpointing": APPLIED,
    "activation_checkpointing_kwargs": Handling(
        "under a gradient objective and under `gradient_conflict`, `use_reentrant` is false, and true is refused"
    ),
    "gradient_checkpointing": Handling("the older name of `activation_checkpointing`"),
    "gradient_checkpointing_kwargs": Handling("the older name of `activation_checkpointing_kwargs`"),
    "torch_compile": Handling(
        "refused under a gradient objective: a compiled model has no second derivative; and under "
        "`gradient_conflict`: its graph has one backward pass"
    ),
    "torch_compile_backend": Handling("as `torch_compile`"),
    "torch_compile_mode": Handling(
        "as `torch_compile`",
        choices=("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"),
    ),
    "use_liger_kernel": _LIGER,
    "liger_kernel_config": _LIGER,
    "use_cache": APPLIED,
    "neftune_noise_alpha": Handling("refused under a gradient objective: it changes the embeddings that are explained"),
    "torch_empty_cache_steps": APPLIED,
    "auto_find_batch_size": Handling("each size that is tried starts from the same initial weights"),
    "logging_strategy": APPLIED,
    "logging_steps": Handling("each objective is logged with the loss: `raw/…` and `weighted/…`", least=0),
    "logging_first_step": APPLIED,
    "log_on_each_node": APPLIED,
    "logging_nan_inf_filter": Handling("in evaluation; in training a loss that is not finite stops the run"),
    "include_num_input_tokens_seen": Handling(choices=("no", "all", "non_padding")),
    "log_level": APPLIED,
    "log_level_replica": APPLIED,
    "disable_tqdm": APPLIED,
    "report_to": Handling("validated before training starts: a logger whose package is missing is refused"),
    "run_name": _LOGGERS,
    "project": _LOGGERS,
    "trackio_space_id": _LOGGERS,
    "trackio_bucket_id": _LOGGERS,
    "trackio_static_space_id": _LOGGERS,
    "eval_strategy": APPLIED,
    "eval_steps": Handling(least=0),
    "eval_delay": Handling(least=0),
    "per_device_eval_batch_size": Handling("in a run 64, or the training batch where that is larger", least=1),
    "prediction_loss_only": _run(
        "a run computes metrics of all predictions", "leave it out", "refused if a metric selects the best checkpoint"
    ),
    "eval_on_start": APPLIED,
    "eval_do_concat_batches": _run("a run computes metrics of all batches together", "leave it out"),
    "eval_use_gather_object": APPLIED,
    "eval_accumulation_steps": Handling(least=1),
    "include_for_metrics": _run("the metrics of a run read predictions and labels only", "leave it out"),
    "batch_eval_metrics": _run("a run computes metrics of all batches together", "leave it out"),
    "save_only_model": _run(f"without the optimizer's state {_RESUMED}", "leave it out"),
    "save_strategy": APPLIED,
    "save_steps": Handling(least=0),
    "save_on_each_node": _run("a run's folder is one that all nodes share", "leave it out"),
    "save_total_limit": Handling(
        "in a run the last one and the best are kept by default; older ones are removed once the new one is verified"
    ),
    "enable_jit_checkpoint": _run(
        "a run writes checkpoints by the clock", "set training.checkpoint_minutes"
    ),
    "push_to_hub": Handling("needs the hub: refused offline", run=_UPLOAD.run),
    "hub_token": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_model_id": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_always_push": _UPLOAD,
    "hub_revision": _UPLOAD,
    "load_best_model_at_end": Handling(
        "refused without evaluations, and with averaged weights. A new best model is saved whatever `save_steps` is"
    ),
    "metric_for_best_model": Handling("a metric that is not computed is refused before any work"),
    "greater_is_better": Handling("follows the metric: losses are minimised. In a run the opposite is refused"),
    "ignore_data_skip": _run(f"with it {_RESUMED}", "leave it out"),
    "restore_callback_states_from_checkpoint": Handling("always true in a run"),
    "full_determinism": APPLIED,
    "seed": _run("a recipe has its own field, which also seeds the student's weights", "set training.seed"),
    "data_seed": Handling("determines, with the number of the epoch, the order of rows", least=0),
    "use_cpu": APPLIED,
    "accelerator_config": Handling(
        "refused: `use_seedable_sampler: false`, as the seed determines the order of rows; `num_steps` of "
        "`gradient_accumulation_kwargs`"
    ),
    "parallelism_config": _both("one text is never split over devices", "leave it out, and use torchrun"),
    "dataloader_drop_last": Handling("refused where it leaves no batch to train on"),
    "dataloader_num_workers": Handling(least=0),
    "dataloader_pin_memory": APPLIED,
    "dataloader_persistent_workers": APPLIED,
    "dataloader_prefetch_factor": Handling(least=1),
    "dataloader_multiprocessing_context": APPLIED,
    "dataloader_in_order": _run(f"with batches in the order in which workers end, {_RESUMED}", "leave it out"),
    "remove_unused_columns": Handling("the column `index` is kept: stored teacher signals are looked up by it"),
    "label_names": Handling("only `[labels]` is accepted: labels are read from the column `labels`"),
    "train_sampling_strategy": Handling(
        "the order follows from the seed and the epoch's number",
        choices=("random", "sequential", "group_by_length", "batch_rebalance"),
    ),
    "length_column_name": _run("encoded rows have their lengths in the column length", "leave it out"),
    "ddp_find_unused_parameters": APPLIED,
    "ddp_bucket_cap_mb": APPLIED,
    "ddp_broadcast_buffers": APPLIED,
    "ddp_static_graph": _both("objectives may run on some steps only, so the graph changes", "leave it out"),
    "ddp_backend": APPLIED,
    "ddp_timeout": Handling(least=1),
    "fsdp": _SHARDED,
    "fsdp_config": _SHARDED,
    "deepspeed": _SHARDED,
    "debug": _both(
        "transformers' detector of overflows fails on the boolean masks of its own models",
        "leave it out: a term that stops being finite is reported with its rows anyway",
    ),
    "skip_memory_metrics": APPLIED,
    "do_train": _SCRIPTS,
    "do_eval": _SCRIPTS,
    "do_predict": _SCRIPTS,
    "resume_from_checkpoint": _run("a run resumes from its last checkpoint by itself", "give the same command again"),
    "local_rank": _run("torchrun sets it for each process", "start the command with torchrun"),
}  # fmt: skip

ARGUMENTS: Mapping[str, Handling] = MappingProxyType(_TABLE)
"""All arguments of TrainingArguments, in transformers' order."""

OF_THE_RUN = ("output_dir", "seed")
"""Arguments that a recipe cannot set at all: a run sets them itself."""

WITHIN_BACKWARD = ("lomo", "adalomo")
"""Optimizers that change weights within the backward pass, as do all whose name ends in ``_layerwise``."""
