"""Tokens and passwords are used, and stand in nothing that is written or printed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import TrainingArguments

from gradistill.bench.plan import read_plan
from gradistill.commands.tune import Tuning, tune
from gradistill.errors import RecipeError
from gradistill.recipe import load_recipe
from gradistill.recipe.secrets import REDACTED, redacted, without_secrets
from gradistill.report.model_card import model_card
from gradistill.training.arguments import ANY, training_arguments
from gradistill.training.trainer import DistillationTrainer
from small import logged

SECRET = "correcthorsebatterystaple"
WORDS = ("token", "secret", "password", "passwd", "key", "credential", "auth")
PLAIN_NAMES = ("average_tokens_across_devices", "include_num_input_tokens_seen")
ARGUMENTS = [
    field.name
    for field in dataclasses.fields(TrainingArguments)
    if any(word in field.name for word in WORDS) and field.name not in PLAIN_NAMES
]
"""Every argument of the installed transformers whose name looks like a secret's."""
NESTED = ("deepspeed.wandb.api_key", "fsdp_config.accessToken", "lr_scheduler_kwargs.db_password")


def written_in(folder: Path) -> list[str]:
    return [
        str(file) for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()
    ]


def test_transformers_has_the_argument_that_this_is_about() -> None:
    assert "hub_token" in ARGUMENTS


@pytest.mark.parametrize("name", [*ARGUMENTS, *NESTED])
def test_it_reaches_training_and_no_text(name: str) -> None:
    recipe = load_recipe("kd", changes=[f"training.arguments.{name}={SECRET}"])
    inside: Any = recipe.training.arguments
    for part in name.split("."):
        inside = inside[part]
    assert inside == SECRET
    card = model_card({"task": "t", "method": "kd", "student": {"name": "s"}, "recipe": recipe.as_dict()})
    for text in (recipe.as_yaml(), card):
        assert SECRET not in text
        assert REDACTED in text


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_run_refuses_it_by_name_and_leaves_nothing(name: str, small: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    expected = pytest.raises(RecipeError, match=f"training.arguments.{name} is '{REDACTED}'")
    with expected as refused, logged(lines):
        small.distilled("kd", "two", tmp_path / "run", f"training.arguments.{name}={SECRET}")
    assert SECRET not in str(refused.value) + "".join(lines)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_holds_no_pickle_of_the_arguments(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(Exception):
        pass

    step, done = DistillationTrainer.training_step, list[int]()

    def stopping(self: Any, *args: Any, **options: Any) -> Any:
        done.append(1)
        if len(done) == 5:
            raise PowerCut
        return step(self, *args, **options)

    monkeypatch.setattr(DistillationTrainer, "training_step", stopping)
    with pytest.raises(PowerCut):
        small.distilled("kd", "two", tmp_path / "run", "training.epochs=2")
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-3"
    assert (checkpoint / "optimizer.pt").is_file()
    assert not (checkpoint / "training_args.bin").exists()


def test_a_recipe_without_its_secret_wants_it_again(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    change = f"training.arguments.hub_token={SECRET}"
    file.write_text(load_recipe("kd", changes=[change]).as_yaml(), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"(?s)training.arguments.hub_token is <redacted>.*give it again: --set"
    ):
        load_recipe(file=file)
    assert load_recipe(file=file, changes=[change]).training.arguments["hub_token"] == SECRET


@pytest.mark.parametrize(
    "changes",
    [
        [f"training.arguments.hub_token={SECRET}", "training.arguments.optim=bogus"],
        [f"training.arguments.hub_token=[{SECRET}"],
        [f"training.arguments={{hub_token: {SECRET}, hub_token: 2}}"],
        [f"training={{arguments: {{hub_token: {SECRET}}}, epochs: x}}"],
        [f"training.arguments.hub_tokn.api_key={SECRET}"],
        [f"training.hub_token={SECRET}"],
    ],
)
def test_no_message_holds_it(changes: list[str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        training_arguments(load_recipe("kd", changes=changes).training, tmp_path, ANY)
    assert SECRET not in str(refused.value)


def test_a_search_refuses_it_by_name_and_leaves_nothing(small: Any, tmp_path: Path) -> None:
    changes = ("training.epochs=1", f"training.arguments.hub_token={SECRET}")
    tuning = Tuning(lambda more: load_recipe("kd", changes=[*changes, *more]), trials=1)
    with pytest.raises(RecipeError, match="hub_token") as refused:
        tune(str(small.teachers["two"]), small.choice("two"), tmp_path / "tune", tuning)
    assert SECRET not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["set", "teacher", "task", "method"])
def test_a_bench_file_with_a_secret_is_refused(place: str, tmp_path: Path) -> None:
    change = [f"training.arguments.hub_token={SECRET}"]
    plan: dict[str, Any] = {"tasks": {"two": {"data": "x"}}, "methods": {"kd": {}}}
    {"set": plan, "teacher": plan.setdefault("teacher", {}), "task": plan["tasks"]["two"],
     "method": plan["methods"]["kd"]}[place]["set"] = change  # fmt: skip
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"the bench sets a secret: training.arguments.hub_token=<redacted>"
    ):
        read_plan(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    "value", ["hf_abcdefghijklmnop", "https://me:pw@example.org/x", "ghp_abcdefghijklmnopqrst"]
)
def test_what_looks_like_a_secret_is_one_under_any_name(value: str) -> None:
    assert REDACTED in str(redacted({"run_name": [value]}))
    assert REDACTED in without_secrets(f"training.arguments.run_name={value}")


@pytest.mark.parametrize("name", [*PLAIN_NAMES, "pad_token", "learning_rate", "run_name", "hub_model_id"])
def test_what_is_none_stays(name: str) -> None:
    assert redacted({name: "plain"}) == {name: "plain"}
