"""Builds transformers' TrainingArguments from a recipe, and refuses unsupported ones before any work."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, MappingProxyType
from typing import Any, get_type_hints

import numpy as np
import pydantic
import torch
from pydantic import ConfigDict
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import SaveStrategy, SchedulerType

from gradistill.data.multilabel_metrics import MULTI_LABEL_METRICS
from gradistill.data.tasks import CLASS_METRICS, SCORE_METRICS
from gradistill.errors import RecipeError, TrainingError, nearest
from gradistill.objectives import Term
from gradistill.objectives.hard_label import HardLabel
from gradistill.recipe import ComputeSettings, Recipe, TrainingSettings
from gradistill.recipe.checkpoint_choice import evaluates, loads_best
from gradistill.recipe.schema import truth_value
from gradistill.recipe.secrets import redacted
from gradistill.training.argument_table import ARGUMENTS, OF_THE_RUN, OWN_NAMES, WITHIN_BACKWARD
from gradistill.training.checkpoints import Sealing
from gradistill.training.trainer_checks import first_labels

CHECKPOINTS = "checkpoints"
"""Folder of a run that holds its checkpoints while it trains."""

LOSS = "loss"
_LIMIT = "save_total_limit"
_BY_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
"""Schedules that watch the metric for the best model."""


@dataclass(frozen=True)
class MetricNames:
    """The names of what a run measures after each epoch: ``metrics``, where larger is better, and the loss.

    ``select`` is the metric that selects the best checkpoint. Without it nothing is measured during training.
    ``classes``: whether the labels are classes, not scores.
    """

    select: str | None = None
    metrics: tuple[str, ...] = ()
    classes: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.metrics, LOSS)


ANY = MetricNames("accuracy", tuple(dict.fromkeys((*CLASS_METRICS, *SCORE_METRICS, *MULTI_LABEL_METRICS))))
"""All metrics of all tasks, for checks before the task is known."""


def check_training(recipe: Recipe, measured: MetricNames = ANY) -> None:
    """Refuse, before anything is loaded, training arguments that a run cannot apply. Leaves no files.

    Raises RecipeError.
    """
    with TemporaryDirectory() as folder:
        arguments = training_arguments(recipe.training, Path(folder), measured)
    with _of_a_recipe():
        check_terms(arguments, list(recipe.objectives.values()), recipe.compute)
    sealing(recipe.training)


@contextmanager
def _of_a_recipe() -> Iterator[None]:
    """Convert a TrainingError inside the block to a RecipeError with the recipe's names."""
    try:
        yield
    except TrainingError as error:
        what = error.what.replace("TrainingArguments.", "training.arguments.")
        raise RecipeError(what, expected=error.expected, remedy=error.remedy) from error


def training_arguments(settings: TrainingSettings, output: Path, measured: MetricNames) -> TrainingArguments:
    """The TrainingArguments of a run. Defaults: linear decay, batches of similar lengths, one evaluation and checkpoint
    in each epoch, and the best checkpoint at the end unless weights are averaged.

    ``settings.arguments`` override any of these by name. Raises RecipeError for an unknown name, for a value that
    TrainingArguments refuses, and for an argument that a run cannot apply (``argument_table``).
    """
    given = _given(settings.arguments)
    fields = {**_defaults(settings, output, measured), **given}
    if measured.select is None and str(fields["eval_strategy"]) != "no":
        raise RecipeError(
            f"training.arguments.eval_strategy is {given['eval_strategy']!r}, and this run has no rows to evaluate on",
            remedy="leave it out",
        )
    fields.pop(_LIMIT, None)  # ``sealing`` removes old checkpoints, once the new one is complete
    try:
        arguments = TrainingArguments(**fields)
    except (
        Exception
    ) as error:  # anything that transformers or accelerate raise for a value, such as a missing package
        raise _refused(settings.arguments, error) from error
    _follow_the_metric(arguments, given, measured)
    if settings.average_weights and arguments.load_best_model_at_end:
        raise RecipeError(
            "training.arguments.load_best_model_at_end is True, and training.average_weights is "
            f"{settings.average_weights}",
            expected="one of the two: the student ends as the best checkpoint, or as the mean of the last weights",
            remedy="leave one of the two out",
        )
    with _of_a_recipe():
        check_arguments(arguments)
        if not measured.classes:
            refuse_smoothed_scores(arguments)
    return arguments


def _defaults(settings: TrainingSettings, output: Path, measured: MetricNames) -> dict[str, Any]:
    """The arguments that a run sets. The best checkpoint is loaded at the end if there are evaluations."""
    given = settings.arguments
    averages, measures = bool(settings.average_weights), measured.select is not None
    by_epoch = measures and evaluates(given)
    return {
        "output_dir": str(output / CHECKPOINTS),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": max(64, settings.batch_size),
        "seed": settings.seed,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch" if by_epoch else "no",
        "save_strategy": "epoch",
        "restore_callback_states_from_checkpoint": True,  # restores the patience of early stopping
        "load_best_model_at_end": measures and loads_best(given, averages_weights=averages),
        "metric_for_best_model": measured.select if by_epoch else None,
        "logging_steps": 50,
        "report_to": "none",
        "label_names": ["labels"],
        "dataloader_pin_memory": torch.accelerator.is_available(),
        "remove_unused_columns": False,
        "use_cpu": not torch.accelerator.is_available(),  # without it, bf16 is refused on a CPU
    }


def sealing(settings: TrainingSettings) -> Sealing:
    """The callback that seals and removes checkpoints. It keeps the best and ``save_total_limit`` others (default 1).

    Raises RecipeError if the limit is not a number of checkpoints.
    """
    kept = settings.arguments.get(_LIMIT, 1)
    if kept is not None and (not isinstance(kept, int) or isinstance(kept, bool) or kept < 1):
        raise RecipeError(
            f"training.arguments.{_LIMIT} is {kept!r}", expected="1 or more, or null to keep all checkpoints",
            remedy="correct it, or leave it out",
        )  # fmt: skip
    return Sealing(kept=kept, minutes=settings.checkpoint_minutes)


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's arguments, converted to the types of TrainingArguments. Refuses what a run cannot apply."""
    accepted: dict[str, Any] = {}
    for name, value in arguments.items():
        handling, defaults = ARGUMENTS.get(name), _defaults_of_transformers()
        if handling is None or name not in defaults:
            raise RecipeError(
                f"training.arguments.{name} is not an argument that a recipe can set"
                + ("" if handling is None else " with the installed transformers, which does not have it"),
                remedy=nearest(
                    name, [key for key, known in ARGUMENTS.items() if known.run is None and key in defaults]
                ),
            )
        if name in OF_THE_RUN:
            assert handling.run is not None
            raise RecipeError(
                f"training.arguments.{name} is not an argument that a recipe can set: {handling.run.why}",
                remedy=handling.run.instead,
            )
        # YAML reads a bare no as false
        value = "no" if value is False and name.endswith("_strategy") else _typed(name, value)
        if handling.run is not None and not _is_default(name, value):
            raise RecipeError(
                f"training.arguments.{name} is {_shown(name, value)}, and {handling.run.why}",
                remedy=handling.run.instead,
            )
        accepted[name] = value
    return accepted


def overruled(settings: TrainingSettings) -> Iterator[str]:
    """Yield a sentence for each recipe field that has no effect because ``arguments`` overrides it."""
    given = _given(settings.arguments)
    for name, field in OWN_NAMES.items():
        if name in given and given[name] != (unused := getattr(settings, field)):
            yield f"training.arguments.{name} {given[name]} overrides training.{field} {unused}"


def _typed(name: str, value: Any) -> Any:
    """``value`` in the argument's type (YAML reads 1e-4 as a text). Other values of a wrong type are refused."""
    if name == _LIMIT or value is None:
        return value
    try:
        typed = _types()[name].validate_python(value)
    except pydantic.ValidationError as error:
        raise _refused({name: value}, ValueError(f"{name}: {error.errors()[0]['msg']}")) from error
    if truth_value(value, typed) is not None:
        raise _refused({name: value}, ValueError(f"{name}: a truth value, and a number is expected"))
    return typed


@cache
def _types() -> dict[str, Any]:
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    return {
        name: pydantic.TypeAdapter(hint, config=config)
        for name, hint in get_type_hints(TrainingArguments).items()
        if name in _defaults_of_transformers()
    }


@cache
def _defaults_of_transformers() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in signature(TrainingArguments).parameters.items()}


def _is_default(name: str, value: Any) -> bool:
    """Whether ``value`` is transformers' default. Two empty values count as equal."""
    default = _defaults_of_transformers()[name]
    return value == default or (not value and not default and not isinstance(default, bool | int | float))


def _shown(name: str, value: Any) -> str:
    return repr(redacted({name: getattr(value, "value", value)})[name])


def _refused(arguments: Mapping[str, Any], error: Exception) -> RecipeError:
    shown = ", ".join(f"{name}: {_shown(name, value)}" for name, value in arguments.items())
    return RecipeError(
        f"TrainingArguments refuses training.arguments {{{shown}}}: {error}",
        remedy="correct them; see transformers.TrainingArguments",
    )


def _follow_the_metric(arguments: TrainingArguments, given: Mapping[str, Any], measured: MetricNames) -> None:
    """Set the direction of the metric for the best model, also for a schedule that watches the metric.

    Refuses a metric that the run does not compute, and the opposite direction.
    """
    if not selects(arguments):
        return
    name = str(arguments.metric_for_best_model).removeprefix("eval_")
    if name not in measured.names:
        raise RecipeError(
            f"training.arguments.metric_for_best_model is {arguments.metric_for_best_model!r}, which this run does "
            "not compute",
            remedy=nearest(name, measured.names),
        )
    greater = name != LOSS
    if given.get("greater_is_better") not in (None, greater):
        raise RecipeError(
            f"training.arguments.greater_is_better is {not greater}, and the worst {name} would count as the best",
            expected=f"{greater} for {name}",
            remedy="leave it out: it follows the metric",
        )
    arguments.greater_is_better = greater
    if arguments.lr_scheduler_type in _BY_METRIC:
        chosen: Any = arguments.lr_scheduler_kwargs or {}
        arguments.lr_scheduler_kwargs = {"mode": "max" if greater else "min", **chosen}


def selects(arguments: TrainingArguments) -> bool:
    """Whether a checkpoint, a schedule or the user's arguments use the metric for the best model."""
    return bool(
        arguments.load_best_model_at_end
        or arguments.save_strategy == SaveStrategy.BEST
        or arguments.lr_scheduler_type in _BY_METRIC
        or arguments.metric_for_best_model is not None
    )


def _strategy(arguments: TrainingArguments) -> str:
    return str(getattr(arguments.eval_strategy, "value", arguments.eval_strategy))


def _selects_by_more_than_loss(arguments: TrainingArguments) -> bool:
    return selects(arguments) and not str(arguments.metric_for_best_model or LOSS).endswith(LOSS)


def _optimizer(arguments: TrainingArguments) -> str:
    return str(getattr(arguments.optim, "value", arguments.optim))


_TOGETHER: tuple[tuple[str, Callable[[Any], bool], str, str], ...] = (
    (
        "max_steps",
        lambda a: a.max_steps == 0,
        "no optimizer step would run",
        "set 1 or more, or -1 for whole epochs",
    ),
    (
        "num_train_epochs",
        lambda a: a.num_train_epochs <= 0 and a.max_steps < 0,
        "no optimizer step would run",
        "set more than 0",
    ),
    (
        "label_smoothing_factor",
        lambda a: a.label_smoothing_factor >= 1,
        "this removes all information of the label",
        "set less than 1",
    ),
    (
        "label_names",
        lambda a: a.label_names not in (None, ["labels"]),
        "labels are read from the column labels",
        "leave it out, and rename the column",
    ),
    (
        "load_best_model_at_end",
        lambda a: a.load_best_model_at_end and _strategy(a) == "no",
        "without evaluations there is no best model",
        "set eval_strategy too, or leave it out",
    ),
    (
        "prediction_loss_only",
        lambda a: a.prediction_loss_only and _selects_by_more_than_loss(a),
        "the best checkpoint is selected by a metric, which needs predictions",
        "leave it out, or select by the loss",
    ),
    (
        "accelerator_config",
        lambda a: getattr(a.accelerator_config, "use_seedable_sampler", True) is False,
        "the seed determines the order of rows",
        "leave use_seedable_sampler out",
    ),
    (
        "accelerator_config",
        lambda a: (
            getattr(a.accelerator_config, "gradient_accumulation_kwargs", None) is not None
            and "num_steps" in a.accelerator_config.gradient_accumulation_kwargs
        ),
        "the Trainer does not read the number of accumulated steps there",
        "set gradient_accumulation_steps",
    ),
    (
        "optim",
        lambda a: _optimizer(a) in WITHIN_BACKWARD or _optimizer(a).endswith("_layerwise"),
        "it changes weights within the backward pass",
        "use another, such as adamw_torch",
    ),
)
"""Values that are refused, alone or in combination: the argument, the condition, the reason, and the remedy."""


def check_arguments(arguments: TrainingArguments) -> None:
    """Refuse arguments that DistillationTrainer cannot apply (``argument_table``), or the Trainer would refuse later.

    Raises TrainingError, before any work.
    """
    for name, handling in ARGUMENTS.items():
        value = getattr(arguments, name, None)
        if value is None:
            continue
        if handling.trainer is not None and not _is_default(name, value):
            raise _not_applied(name, value, handling.trainer.why, handling.trainer.instead)
        low = handling.least is not None and isinstance(value, int | float) and not value >= handling.least
        if low or (isinstance(value, float) and math.isnan(value)):
            raise _outside(
                name, value, f"{handling.least} or more" if handling.least is not None else "a number"
            )
        if handling.choices and value not in handling.choices:
            raise _outside(name, value, f"one of {', '.join(handling.choices)}")
    for name, wrong, why, instead in _TOGETHER:
        if wrong(arguments):
            value = getattr(arguments, name)
            raise _not_applied(name, getattr(value, "value", value), why, instead)
    _try(arguments)


def check_terms(arguments: TrainingArguments, terms: Sequence[Term], compute: ComputeSettings) -> None:
    """Refuse arguments that do not fit the objectives or the ``compute`` settings.

    Raises TrainingError.
    """
    smoothing = arguments.label_smoothing_factor
    if smoothing and not any(isinstance(term.objective, HardLabel) for term in terms):
        raise _not_applied(
            "label_smoothing_factor",
            smoothing,
            "there is no hard_label to smooth",
            "leave it out, or add hard_label",
        )
    gradients = [term.name for term in terms if term.objective.second_order]
    if compute.splits_gradients:
        _check_two_backward_passes(arguments, compute.gradient_conflict)
    if not gradients:
        return
    without = {
        "torch_compile": "a compiled model has no second derivative",
        "neftune_noise_alpha": "it changes the embeddings that are explained",
    }
    for name, why in without.items():
        if value := getattr(arguments, name):
            raise _not_applied(name, value, why, f"leave it out, or train without {' and '.join(gradients)}")
    _refuse_reentrant(
        arguments, "re-entrant checkpoints have no second derivative", "leave use_reentrant out"
    )


def _check_two_backward_passes(arguments: TrainingArguments, rule: str) -> None:
    """Refuse arguments that allow only one backward pass through a graph."""
    remedy = f"leave it out, or train without compute.gradient_conflict: {rule}"
    if arguments.torch_compile:
        raise _not_applied("torch_compile", True, "a compiled graph has one backward pass only", remedy)
    _refuse_reentrant(arguments, "re-entrant checkpoints have one backward pass only", remedy)


def _refuse_reentrant(arguments: TrainingArguments, why: str, remedy: str) -> None:
    chosen: Any = arguments.gradient_checkpointing_kwargs or {}
    if arguments.gradient_checkpointing and chosen.get("use_reentrant"):
        newer = "activation_checkpointing_kwargs"  # transformers 5.17 has the older name only
        name = newer if hasattr(arguments, newer) else "gradient_checkpointing_kwargs"
        raise _not_applied(name, chosen, why, remedy)


def refuse_smoothed_scores(arguments: TrainingArguments) -> None:
    """Raise TrainingError for label smoothing in a regression, or with several labels a row."""
    if arguments.label_smoothing_factor:
        raise _not_applied(
            "label_smoothing_factor",
            arguments.label_smoothing_factor,
            "it does not apply to scores, nor to several labels a row",
            "leave it out",
        )


def check_metric(arguments: TrainingArguments, given: Mapping[str, Any]) -> None:
    """Refuse a metric for the best model that no evaluation computes, before the first evaluation.

    ``given`` are the Trainer's parameters. If the code of ``compute_metrics`` does not contain the metric's name, the
    function is called on two evaluation rows with logits of zeros, and its metrics are read. If it raises, nothing is
    refused. Raises TrainingError.
    """
    if not selects(arguments) or _strategy(arguments) == "no":
        return
    rows, compute = given.get("eval_dataset"), given.get("compute_metrics")
    splits = {f"{name}_": split for name, split in rows.items()} if isinstance(rows, dict) else {"": rows}
    known = [f"{prefix}{LOSS}" for prefix in splits]
    metric = str(arguments.metric_for_best_model).removeprefix("eval_")
    named = {metric.removeprefix(prefix) for prefix in splits}
    if not named.isdisjoint(_constants(getattr(compute, "__code__", None))):
        return
    if compute is not None:
        for prefix, split in splits.items():
            names = _computed(compute, arguments, given, split)
            if names is None:
                return
            known += [f"{prefix}{name.removeprefix('eval_')}" for name in names]
    if metric not in known and not metric.endswith(("_runtime", "_per_second")):
        raise TrainingError(
            f"TrainingArguments.metric_for_best_model is {arguments.metric_for_best_model!r}, which no evaluation "
            "computes",
            remedy=nearest(metric, known)
            + ("" if compute is not None else "; pass compute_metrics=… for others than the loss"),
        )


def _constants(code: CodeType | None) -> Iterator[str]:
    """Yield the string constants of a function's code, including nested functions."""
    for constant in code.co_consts if code is not None else ():
        if isinstance(constant, CodeType):
            yield from _constants(constant)
        else:
            yield from (
                each for each in (constant if isinstance(constant, tuple) else (constant,)) if _is_name(each)
            )


def _is_name(constant: object) -> bool:
    return isinstance(constant, str) and constant.isidentifier()


def _computed(
    compute: Any, arguments: TrainingArguments, given: Mapping[str, Any], rows: Any
) -> list[str] | None:
    labels, model = first_labels(rows), given.get("model")
    shaped = (
        arguments.batch_eval_metrics or not arguments.eval_do_concat_batches or arguments.include_for_metrics
    )
    if not labels or shaped or given.get("preprocess_logits_for_metrics") is not None:
        return None
    width = getattr(getattr(model, "config", None), "num_labels", None)
    if width is None:
        return None
    try:
        zeros = np.zeros((len(labels), width), np.float32)
        return [
            str(name) for name in compute(EvalPrediction(predictions=zeros, label_ids=np.asarray(labels)))
        ]
    except Exception:  # anything that the caller's function raises on two rows
        return None


_ACCEPTED: set[str] = set()
"""Arguments that have passed ``_try`` in this process, as JSON: a job checks the same ones several times."""


def _try(arguments: TrainingArguments) -> None:
    """Refuse arguments with which a Trainer of a tiny model cannot be built. The message names the argument whose
    default value avoids the error."""
    if arguments.fsdp or arguments.deepspeed:
        return  # these need their own processes and models
    values = {name: value for name, value in arguments.to_dict().items() if name != "output_dir"}
    tried = json.dumps(values, sort_keys=True, default=str)
    if tried in _ACCEPTED:
        return
    if (error := _failure(arguments)) is None:
        _ACCEPTED.add(tried)
        return
    defaults = _defaults_of_transformers()
    changed = [name for name in ARGUMENTS if getattr(arguments, name, None) != defaults.get(name)]
    culprits = [name for name in changed if _failure(arguments, {name: defaults[name]}) is None]
    named = ", ".join(f"{name}={_shown(name, getattr(arguments, name))}" for name in culprits or changed)
    reason = " ".join(str(error).split()) or type(error).__name__
    raise TrainingError(
        f"transformers refuses TrainingArguments.{named}: {reason}",
        remedy="install what it lacks, or choose another value; see transformers.TrainingArguments",
    ) from error


def _failure(
    arguments: TrainingArguments, changes: Mapping[str, Any] = MappingProxyType({})
) -> Exception | None:
    """The error of building a Trainer of a tiny model, its optimizer, schedule and data loader; None without one."""
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    rows: Any = [{"input_ids": [1]}]
    state = torch.random.get_rng_state()
    with TemporaryDirectory() as folder:
        tried = copy.copy(arguments)
        overrides = {
            "output_dir": folder,
            "push_to_hub": False,
            "enable_jit_checkpoint": False,
            "disable_tqdm": True,
        }
        for name, value in {**overrides, **changes}.items():
            setattr(tried, name, value)
        try:
            trainer = Trainer(
                BertForSequenceClassification(config), tried, train_dataset=rows, eval_dataset=rows
            )
            trainer.create_optimizer_and_scheduler(100)
            trainer.get_train_dataloader()
        except Exception as error:  # of any library that an argument names
            return error
        finally:
            torch.random.set_rng_state(state)
    return None


def _not_applied(name: str, value: object, why: str, instead: str) -> TrainingError:
    return TrainingError(f"TrainingArguments.{name} is {_shown(name, value)}, and {why}", remedy=instead)


def _outside(name: str, value: object, expected: str) -> TrainingError:
    return TrainingError(
        f"TrainingArguments.{name} is {value!r}", expected=expected, remedy="correct it, or leave it out"
    )
