"""A small distillation: tiny BERTs without dropout, a few rows of unequal length, plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments

from families import VOCABULARY, build
from gradistill.batch import Batch
from gradistill.models.student import share_embeddings
from gradistill.objectives import HardLabel, HiddenStates, Rationale, SoftLabel, Term
from gradistill.recipe import ComputeSettings, load_recipe
from gradistill.signals import Signal, forward_pass
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training import trainer as trainer_module
from gradistill.training.trainer import DistillationTrainer

QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTHS = (9, 3, 7, 4, 6, 2, 8, 5)


def rows(labels: int, count: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """Random texts of different lengths; the first four have 23 tokens, all eight have 44."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [LENGTHS[k % len(LENGTHS)] for k in range(count)]
    return [
        {
            "input_ids": torch.randint(5, VOCABULARY, (length,), generator=generator).tolist(),
            "attention_mask": [1] * length,
            "special_tokens_mask": [0] * length,
            "labels": k % labels if labels > 1 else float(torch.randn((), generator=generator)),
            "index": k,
        }
        for k, length in enumerate(lengths)
    ]


def padded(features: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    width = max(len(feature["input_ids"]) for feature in features)
    batch = {
        key: torch.tensor([[*feature[key], *[0] * (width - len(feature[key]))] for feature in features])
        for key in ("input_ids", "attention_mask", "special_tokens_mask")
        if key in features[0]
    }
    rest = (key for key in ("labels", "index") if key in features[0])
    return {**batch, **{key: torch.tensor([feature[key] for feature in features]) for key in rest}}


padded.mask_token_id = 3  # pyright: ignore[reportFunctionMemberAccess]


AGAINST = (
    Term(HardLabel(), 0.3),
    Term(SoftLabel(), 0.7),
    Term(Rationale(), -2.0),
    Term(HiddenStates(), 0.01),
)
"""A negative weight turns the reasons against the answers, so that there is something to take out of their gradient."""


def rule(name: Any, cap: float = 1.0) -> dict[str, Any]:
    """Of a trainer: what it does with the gradients of the answers and of the rest."""
    return {"compute": ComputeSettings(gradient_conflict=name, gradient_cap=cap if name == "cap" else 1.0)}


def terms_of(method: str) -> list[Term]:
    if method == "against":
        return list(AGAINST)
    if method == "states":  # which do not reach the classifier
        return [Term(HardLabel()), Term(HiddenStates(), -1.0)]
    recipe = load_recipe(method)
    return list(recipe.objectives.values())


class Noting:
    """A teacher that notes the names of what it is asked for, and the row numbers, call by call."""

    def __init__(self, model: Any) -> None:
        self.online = OnlineTeacher(model)
        self.asked: list[set[str]] = []
        self.rows: list[list[int]] = []

    def __call__(self, batch: Batch, requests: Iterable[Signal]) -> dict[Signal, Tensor]:
        wanted = tuple(requests)
        assert batch.index is not None
        self.asked.append({type(request).__name__ for request in wanted})
        self.rows.append(batch.index.tolist())
        return dict(self.online(batch, wanted))

    @property
    def explained(self) -> list[list[int]]:
        """The rows of the calls that ask for attribution scores."""
        calls = zip(self.asked, self.rows, strict=True)
        return [rows for names, rows in calls if "AttributionScores" in names]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each second-order graph of the student, in order."""
    rows: list[int] = []
    real = forward_pass.view_gradients

    def watched(values: Tensor, *arguments: Any, create_graph: bool, **options: Any) -> Any:
        if create_graph:
            rows.append(len(values))
        return real(values, *arguments, create_graph=create_graph, **options)

    monkeypatch.setattr(forward_pass, "view_gradients", watched)
    return rows


class Kit:
    """What the tests build from: see ``trainer``."""

    rows, padded, terms_of = staticmethod(rows), staticmethod(padded), staticmethod(terms_of)
    rule = staticmethod(rule)
    noting = Noting

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self, labels: int = 3, *, frozen: bool = False, **changes: Any) -> tuple[Any, Any]:
        """A student of two blocks and a teacher of three, sharing the teacher's embeddings."""
        student = build("bert", labels=labels, seed=1, **{"num_hidden_layers": 2, **QUIET, **changes})
        teacher = build("bert", labels=labels, seed=2, initializer_range=0.2)
        share_embeddings(student, teacher, "frozen" if frozen else "copied")
        return student, teacher

    def arguments(self, **changes: Any) -> TrainingArguments:
        plain = {
            "output_dir": str(self.folder / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1,
            "save_strategy": "no", "seed": 0, "lr_scheduler_type": "constant", "max_grad_norm": 0,
        }  # fmt: skip
        return TrainingArguments(**{**plain, **changes})

    def trainer(
        self,
        terms: str | Sequence[Any],
        models: tuple[Any, Any] | None = None,
        *,
        data: Any = None,
        sgd: bool = False,
        options: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> DistillationTrainer:
        """A trainer for a method or its terms. With ``sgd`` a step moves each weight by its negative gradient."""
        student, teacher = models or self.models()
        optimizer = torch.optim.SGD(student.parameters(), lr=1.0) if sgd else None
        return DistillationTrainer(
            student,
            teacher=teacher,
            objectives=terms_of(terms) if isinstance(terms, str) else terms,
            **{
                "args": self.arguments(**arguments),
                "train_dataset": rows(student.config.num_labels if student else 3) if data is None else data,
                "data_collator": padded,
                "optimizers": (optimizer, None),
                **(options or {}),
            },
        )


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the start-up check, which is slow, where a test is about the steps that come after it."""
    monkeypatch.setattr(trainer_module, "check_second_order", lambda *_, **__: [])


@pytest.fixture
def moved() -> Callable[..., dict[str, Tensor]]:
    """What a run takes away from each weight: after one step of plain descent, its gradient."""

    def run(trainer: DistillationTrainer) -> dict[str, Tensor]:
        student: Any = trainer.model
        before = {name: p.detach().clone() for name, p in student.named_parameters()}
        trainer.train()
        return {name: before[name] - p.detach() for name, p in student.named_parameters()}

    return run
