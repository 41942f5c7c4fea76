"""Every argument of transformers is in the table, and what the table refuses is refused before any work."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from gradistill.errors import RecipeError, TrainingError
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.soft_label import SoftLabel
from gradistill.recipe import load_recipe
from gradistill.training.argument_table import ARGUMENTS, Handling
from gradistill.training.arguments import ANY, MetricNames, check_training, training_arguments
from training.tables import arguments_as_markdown


def test_nobody_has_overlooked_an_argument_of_the_installed_transformers() -> None:
    """Where this fails, decide for the new argument: applied, or refused and why; then add it to the table."""
    assert [field.name for field in fields(TrainingArguments)] == list(ARGUMENTS)


def test_the_documentation_shows_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert arguments_as_markdown() in text, (
        "PYTHONPATH=tests python tests/training/tables.py prints the table"
    )


OTHER: dict[str, Any] = {
    "output_dir": "elsewhere", "seed": 42, "fsdp": "full_shard", "fsdp_config": {"min_num_params": 1},
    "deepspeed": "ds.json", "parallelism_config": "x", "liger_kernel_config": {"rope": True},
    "include_for_metrics": ["inputs"], "resume_from_checkpoint": "x", "local_rank": 3, "length_column_name": "size",
    "hub_token": "hf_secret", "hub_model_id": "a/b", "hub_revision": "x", "hub_strategy": "end",
    "hub_private_repo": True, "debug": "underflow_overflow",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, handling in ARGUMENTS.items() if handling.run is not None])
def test_what_a_run_cannot_apply_is_refused_by_name(name: str, tmp_path: Path) -> None:
    default = TrainingArguments.__dataclass_fields__[name].default
    value = OTHER.get(name, not default)
    settings = load_recipe("kd").training.model_copy(update={"arguments": {name: value}})
    recipe = load_recipe("kd").model_copy(update={"training": settings})
    with pytest.raises(RecipeError) as caught:
        check_training(recipe)
    assert f"training.arguments.{name}" in str(caught.value) or f"{{{name}:" in str(caught.value)
    assert "To do: " in str(caught.value)
    assert "hf_secret" not in str(caught.value)


TRACEBACKS = [
    "report_to=tensorboard", "report_to=bogus", "prediction_loss_only=true", "label_names=[gold]",
    "eval_do_concat_batches=false", "batch_eval_metrics=true", "optim=adamw_bnb_8bit", "optim=grokadamw", "optim=lomo",
    "deepspeed=ds.json", "push_to_hub=true", "metric_for_best_model=bogus", "gradient_accumulation_steps=0",
    "gradient_accumulation_steps=two", "save_only_model=true", "ignore_data_skip=true", "per_device_train_batch_size=0",
    "max_steps=0", "adam_beta1=1.5", "log_level=loud", "torch_compile_backend=bogus", "optim_args=abc",
    "lr_scheduler_type=warmup_stable_decay", "lr_scheduler_kwargs={power: 2}",
    "dataloader_multiprocessing_context=bogus",
    "train_sampling_strategy=sorted", "label_smoothing_factor=1.5", "weight_decay=.nan",
]  # fmt: skip


@pytest.mark.parametrize("change", TRACEBACKS)
def test_what_ended_in_a_traceback_is_refused_before_any_work(
    change: str, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        small.distilled("kd", "two", tmp_path / "run", f"training.arguments.{change}")
    assert change.split("=")[0] in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_number_that_is_written_as_a_text_is_a_number(tmp_path: Path) -> None:
    settings = load_recipe("kd").training.model_copy(update={"arguments": {"weight_decay": "1e-4"}})
    assert training_arguments(settings, tmp_path, ANY).weight_decay == 1e-4


CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if hasattr(TrainingArguments, name)
)
"""Transformers 5.17 has the older name alone."""


@pytest.mark.parametrize(
    "change",
    ["torch_compile=true", "neftune_noise_alpha=5", f"{CHECKPOINTING}_kwargs={{use_reentrant: true}}"],
)
def test_what_has_no_second_derivative_is_refused_under_gradient_objectives(change: str) -> None:
    changes = [f"training.arguments.{change}", f"training.arguments.{CHECKPOINTING}=true"]
    with pytest.raises(RecipeError, match="training.arguments." + change.split("=")[0]):
        check_training(load_recipe("gkd", changes=changes))
    check_training(load_recipe("kd", changes=changes))


def test_label_smoothing_needs_labels_that_are_classes(kit: Any) -> None:
    changes = ["training.arguments.label_smoothing_factor=0.1"]
    with pytest.raises(RecipeError, match="does not apply to scores"):
        check_training(
            load_recipe("kd", changes=changes), MetricNames("spearman", ("spearman",), classes=False)
        )
    with pytest.raises(TrainingError, match="there is no hard_label to smooth"):
        kit.trainer([SoftLabel()], label_smoothing_factor=0.1)
    with pytest.raises(TrainingError, match="does not apply to scores"):
        kit.trainer([HardLabel()], kit.models(1), label_smoothing_factor=0.1)


@pytest.mark.parametrize("name", [n for n, handling in ARGUMENTS.items() if handling.trainer is not None])
def test_what_the_trainer_cannot_apply_is_refused_by_name(name: str, kit: Any) -> None:
    arguments = kit.arguments()
    default = TrainingArguments.__dataclass_fields__[name].default
    setattr(arguments, name, OTHER.get(name, not default))
    with pytest.raises(TrainingError, match=f"TrainingArguments.{name} is "):
        kit.trainer([HardLabel()], options={"args": arguments})
    assert not (kit.folder / "run").exists()


def test_a_caller_may_leave_what_a_run_may_not(kit: Any) -> None:
    """The Trainer's own users choose themselves."""
    for name in ("save_only_model", "ignore_data_skip", "batch_eval_metrics", "prediction_loss_only"):
        assert ARGUMENTS[name].trainer is None
    kit.trainer([HardLabel(), GradientAlignment()], save_only_model=True, ignore_data_skip=True)


def test_a_handling_without_anything_is_applied() -> None:
    assert Handling() == ARGUMENTS["bf16"]
