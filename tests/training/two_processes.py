"""What each of two processes runs for test_distributed.py."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gradistill.training.distributed import leave_process_group
from gradistill.training.weight_average import WeightAverage
from training.conftest import Kit


def run(folder: Path, case: str, arguments: dict[str, Any]) -> None:
    rank = os.environ["RANK"]
    method, _, share = case.removesuffix(" in float32").partition(" of ")
    method, _, rule = method.removesuffix(" averaged").partition(" under ")
    kit = Kit(folder / rank)
    wide = torch.float32 if case.endswith(" in float32") else torch.float64
    models = tuple(model.to(wide) for model in kit.models(frozen=method in ("gkd", "gkd_cls", "rationale")))
    terms = [
        replace(t, share=float(share or 1)) if t.objective.second_order else t for t in kit.terms_of(method)
    ]
    options = kit.rule(rule, cap=0.1) if rule else {}
    if case.endswith("averaged"):
        options["callbacks"] = [WeightAverage(0.5)]
    trainer = kit.trainer(terms, models, options=options, sgd=True, ddp_backend="gloo", **arguments)
    trainer.train()
    assert trainer.accelerator.num_processes == 2
    evaluated = trainer.evaluate(trainer.train_dataset)
    found = {"weights": models[0].state_dict(), "history": trainer.state.log_history, "evaluated": evaluated}
    torch.save(found, folder / f"{case}-{rank}.pt")


def run_cases(folder: Path, cases: dict[str, dict[str, Any]], environment: dict[str, str]) -> None:
    """All cases in one process, under the variables that torchrun sets."""
    os.environ.update(environment)
    for case, arguments in cases.items():
        run(folder, case, arguments)
    leave_process_group()
