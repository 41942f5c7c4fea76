"""Private names of libraries: each is in the table of CONTRIBUTING.md, in one module, and is still there."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.utils.hub import cached_file

import gradistill
from families import build

HOUSE = Path(gradistill.__file__).parent
_PRIVATE = re.compile(r"_[a-z]\w*")


@cache
def table() -> dict[str, str]:
    """The module of each private name, by the table."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \| `(\S+\.py)` \|", text.partition("## Private names")[2], re.M)
    return {name: module for names, module in rows for name in re.findall(r"[.(](_\w+)", names)}


def named(node: ast.AST) -> str | None:
    """The name that a node reads or overrides, if it can be one of a library."""
    match node:
        case ast.Attribute(attr=name, value=value):
            return None if isinstance(value, ast.Name) and value.id in ("os", "sys") else name
        case ast.FunctionDef(name=name) | ast.keyword(arg=str(name)):
            return name
        case ast.Constant(value=str(name)) if name in table():
            return name
    return None


def defined(node: ast.AST) -> str | None:
    """The name that a node defines for the package itself."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            return name
        case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")):
            return name
    return None


def used() -> dict[str, set[str]]:
    """The modules of each underscored name that no module of the package defines, or that overrides a library's."""
    own, found = set[str | None](), defaultdict[str, set[str]](set)
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            own.add(defined(node))
            if (name := named(node)) is not None and _PRIVATE.fullmatch(name):
                found[name].add(path.relative_to(HOUSE).as_posix())
    bases = (Trainer, PreTrainedModel, nn.Module, Accelerator)
    return {
        name: modules
        for name, modules in found.items()
        if name not in own or any(hasattr(base, name) for base in bases)
    }


def test_every_private_name_is_in_the_table_and_in_one_module() -> None:
    assert {name: {module} for name, module in table().items()} == used()


def _kept_by_accelerate() -> bool:
    return "model._original_forward = model.forward" in inspect.getsource(Accelerator.prepare_model)


def _read_by_the_arguments() -> bool:
    return "return self._n_gpu" in inspect.getsource(TrainingArguments.n_gpu.fget)  # pyright: ignore


def _ignored_by_ddp() -> bool:
    return "_ddp_params_and_buffers_to_ignore" in inspect.getsource(nn.parallel.DistributedDataParallel)


CHECKS: dict[str, Callable[[], bool]] = {
    **{
        name: lambda name=name: callable(getattr(Trainer, name))
        for name in (
            "_inner_training_loop", "_save_optimizer_and_scheduler", "_set_signature_columns_if_needed",
            "_remove_unused_columns", "_get_train_sampler", "_get_grad_norm", "_determine_best_metric",
            "_run_epoch", "_prepare_inputs",
        )
    },
    **{
        name: lambda name=name: name in inspect.signature(cached_file).parameters
        or name in inspect.getsource(inspect.getmodule(cached_file))  # pyright: ignore[reportArgumentType]
        for name in ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    },
    "_signature_columns": lambda: "self._signature_columns" in inspect.getsource(Trainer),
    "_attn_implementation": lambda: build("bert").config._attn_implementation == "sdpa",
    "_can_set_attn_implementation": lambda: build("bert")._can_set_attn_implementation() is True,
    "_name_or_path": lambda: build("bert").config._name_or_path == "",
    "_original_forward": _kept_by_accelerate,
    "_n_gpu": _read_by_the_arguments,
    "_ddp_params_and_buffers_to_ignore": _ignored_by_ddp,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(table()))
def test_the_library_still_has_the_name(name: str) -> None:
    assert CHECKS[name]()
