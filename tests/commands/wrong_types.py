"""What every command does with arguments of a wrong type: what a process of test_given.py runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gradistill.commands.audit import audit
from gradistill.commands.distill import distill
from gradistill.commands.explain import explain
from gradistill.commands.finetune import finetune
from gradistill.commands.predict import predict
from gradistill.commands.pretrain import pretrain
from gradistill.commands.store_signals import store_signals
from gradistill.errors import GradistillError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.recipe import load_recipe


def write_refusals(teacher: str, data: Any, at: str, file: str) -> None:
    """Write to ``file`` what each refusal says: command, argument, what was given, and the error."""
    _refuse_others(teacher, data, at)
    commands: dict[str, Callable[[Any, Any], object]] = {
        "finetune": lambda m, d: finetune(m, d, at, load_recipe("finetune")),
        "distill": lambda m, d: distill(m, d, at, load_recipe("kd")),
        "signals": lambda m, d: store_signals(m, d, at, load_recipe("kd")),
        "audit": lambda m, d: audit(m, [m], d, at),
        "pretrain": lambda m, d: pretrain(m, [d], at, load_recipe("pretrain")),
        "explain": lambda m, d: explain(m, ["a text"]),
        "students": lambda m, d: audit(teacher, m, d, at),
    }
    found: list[list[str]] = []

    def refused(command: str, about: str, given: str, model: Any, data: Any) -> None:
        try:
            commands[command](model, data)
        except GradistillError as error:
            found.append([command, about, given, type(error).__name__, str(error)])

    model, tokenizer = load_classifier(teacher)[0], load_tokenizer(teacher)
    wrong = {
        "int": 7, "None": None, "bytes": b"folder", "model": model, "swapped": (tokenizer, model),
        "single": (model,), "Linear": torch.nn.Linear(2, 2),
    }  # fmt: skip
    for command in commands:
        for given, one in wrong.items():
            refused(command, "model", given, one, data)
        if command not in ("explain", "students"):
            refused(command, "data", "int", teacher, 7)
            refused(command, "data", "None", teacher, None)
    refused("students", "model", "text", teacher, data)
    Path(file).write_text(json.dumps(found), encoding="utf-8")


def _refuse_others(teacher: Any, data: Any, at: Any) -> None:
    others: dict[str, Callable[[], object]] = {
        "recipe is 'kd'": lambda: distill(teacher, data, at, "kd"),
        "recipe is 'finetune'": lambda: finetune(teacher, data, at, "finetune"),
        "output is None": lambda: distill(teacher, data, None, load_recipe("kd")),
        "data is of the type list": lambda: predict(teacher, [{"text": "a"}], at + ".csv"),
        "students is an empty list": lambda: audit(teacher, [], data, at),
        "changes is a str": lambda: load_recipe("kd", changes="training.epochs=1"),
        "changes is a dict": lambda: load_recipe("kd", changes={"training.epochs": 1}),
    }
    for expected, call in others.items():
        try:
            call()
        except GradistillError as error:
            assert expected in str(error), str(error)
        else:
            raise AssertionError(expected)
