"""From a recipe to TrainingArguments: defaults, what changes them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from gradistill.errors import RecipeError, TrainingError
from gradistill.recipe import load_recipe
from gradistill.training import arguments as module
from gradistill.training.arguments import CHECKPOINTS, MetricNames, training_arguments


def made(folder: Path, *changes: str) -> TrainingArguments:
    settings = load_recipe("adkd", changes=["training.arguments.use_cpu=true", *changes]).training
    return training_arguments(settings, folder, MetricNames("accuracy", ("accuracy", "f1")))


def refusal(folder: Path, change: str) -> str:
    with pytest.raises(RecipeError) as caught:
        made(folder, f"training.arguments.{change}")
    return str(caught.value)


def test_the_recipe_stands_under_the_names_of_transformers(tmp_path: Path) -> None:
    changes = (
        "training.learning_rate=2e-4",
        "training.epochs=2.5",
        "training.batch_size=128",
        "training.seed=7",
    )
    found = made(tmp_path, *changes)
    assert (found.learning_rate, found.num_train_epochs, found.seed) == (2e-4, 2.5, 7)
    assert (found.per_device_train_batch_size, found.per_device_eval_batch_size) == (128, 128)
    assert Path(str(found.output_dir)) == tmp_path / CHECKPOINTS
    assert not any(tmp_path.iterdir())


def test_the_defaults_keep_the_best_of_one_evaluation_an_epoch(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.per_device_eval_batch_size == 64
    assert (found.eval_strategy, found.save_strategy, found.lr_scheduler_type) == ("epoch", "epoch", "linear")
    assert found.load_best_model_at_end
    assert (found.metric_for_best_model, found.greater_is_better) == ("accuracy", True)
    assert found.train_sampling_strategy == "group_by_length"  # padding is the first factor of speed
    assert (found.weight_decay, found.warmup_steps, found.report_to) == (0.0, 0, [])
    assert not found.remove_unused_columns


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("weight_decay=0.1", "weight_decay", 0.1),
        ("learning_rate=3e-3", "learning_rate", 3e-3),
        ("lr_scheduler_type=cosine", "lr_scheduler_type", "cosine"),
        ("per_device_eval_batch_size=3", "per_device_eval_batch_size", 3),
        ("gradient_accumulation_steps=4", "gradient_accumulation_steps", 4),
        ("bf16=true", "bf16", True),
        ("logging_strategy=no", "logging_strategy", "no"),
    ],
)
def test_any_argument_can_be_set_by_its_own_name(change: str, field: str, value: Any, tmp_path: Path) -> None:
    assert getattr(made(tmp_path), field) != value
    assert getattr(made(tmp_path, f"training.arguments.{change}"), field) == value


def test_an_unknown_argument_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, "wieght_decay=0.1")
    assert "training.arguments.wieght_decay is not an argument that a recipe can set" in message
    assert "did you mean 'weight_decay'?" in message


def test_the_output_folder_is_not_set_in_a_recipe(tmp_path: Path) -> None:
    message = refusal(tmp_path, "output_dir=elsewhere")
    assert "training.arguments.output_dir is not an argument that a recipe can set" in message
    assert "--output" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("eval_strategy=sometimes", "sometimes"),
        ("lr_scheduler_type=circular", "circular"),
        ("optim=adamant", "adamant"),
        ("save_strategy=steps", "strategy"),  # the best cannot be kept where saving and evaluating differ
        ("logging_steps=often", "often"),
        ("logging_steps=true", "a truth value"),
        ("weight_decay=no", "a truth value"),
    ],
)
def test_a_value_that_transformers_refuses_is_the_recipes_fault(
    change: str, word: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, change)
    assert "TrainingArguments refuses training.arguments" in message
    assert word in message
    assert "see transformers.TrainingArguments" in message


def test_arguments_are_tried_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job checks the same ones several times, in other folders too; what differs is tried, also after a refusal."""
    tried = []
    made = module.Trainer
    monkeypatch.setattr(module, "Trainer", lambda *given, **named: tried.append(1) or made(*given, **named))
    monkeypatch.setattr(module, "_ACCEPTED", set())
    for folder, rate in (("a", 1e-4), ("b", 1e-4), ("a", 2e-4), ("b", 2e-4)):
        module.check_arguments(TrainingArguments(str(tmp_path / folder), learning_rate=rate))
    assert len(tried) == 2
    wrong = TrainingArguments(str(tmp_path), lr_scheduler_type="linear", lr_scheduler_kwargs={"nonsense": 1})
    for _ in range(2):
        with pytest.raises(TrainingError, match="refuses"):
            module.check_arguments(wrong)
