"""The trainer's arithmetic: every method trains, and a step is what the papers' equations say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy

from gradistill.objectives import Term
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.hidden_states import HiddenStates
from gradistill.objectives.soft_label import SoftLabel
from gradistill.recipe import shipped_methods
from gradistill.training.trainer import DistillationTrainer
from slow import slow
from stand_ins import out_of_memory

Moved = Callable[..., dict[str, Tensor]]


def bits(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(model: Any, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def losses(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


OF_EVERY_KIND = ("kd", "adkd", "gkd", "jacobian", "rationale", "coalition")
"""Methods that are trained with a regression and two labels, too."""


@pytest.mark.parametrize(
    ("method", "labels"),
    [(name, 3) for name in shipped_methods()] + [slow(*case) for case in product(OF_EVERY_KIND, (1, 2))],
)
def test_every_method_trains(method: str, labels: int, kit: Any) -> None:
    student, teacher = kit.models(labels, frozen=method.startswith("gkd"))
    before, teachers = bits(student), bits(teacher)
    trainer = kit.trainer(method, (student, teacher), data=Dataset.from_list(kit.rows(labels)))
    trainer.train()
    assert trainer.state.global_step == 2
    for name, parameter in student.named_parameters():
        still = torch.equal(parameter, before[name])
        # the key's bias shifts all attention scores of a query alike: the softmax does not feel it
        unfelt = "key.bias" in name or (method == "pretrain" and ("pooler" in name or "classifier" in name))
        assert still != parameter.requires_grad or unfelt, name
    assert same_bits(teacher, teachers)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert len(losses(trainer)) == 2
    for step, logs in enumerate(losses(trainer)):
        terms = [term for term in kit.terms_of(method) if term.runs_at(step, step / 2)]
        assert {key for key in logs if "/" in key} == {f"{kind}/{t.name}" for t in terms for kind in KINDS}
        for term in terms:
            assert logs[f"raw/{term.name}"] > 0
            assert logs[f"weighted/{term.name}"] == pytest.approx(logs[f"raw/{term.name}"] * term.weight)
        # float32, and the loss is summed in another order
        assert sum(logs[f"weighted/{t.name}"] for t in terms) == pytest.approx(logs["loss"], rel=1e-5)


KINDS = ("raw", "weighted")


def spoken(model: Any, row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits and embedding output of one text without padding, by BERT's own parts."""
    embedding = model.bert.embeddings(torch.tensor([row["input_ids"]]))
    if not embedding.requires_grad:
        embedding = embedding.detach().requires_grad_()
    state = model.bert.encoder(embedding).last_hidden_state
    return model.classifier(model.bert.pooler(state))[0], embedding


def slope(value: Tensor, embedding: Tensor) -> Tensor:
    return torch.autograd.grad(value, embedding, create_graph=True)[0][0]


def naive_gkd(student: Any, teacher: Any, data: list[dict[str, Any]]) -> Tensor:
    """METHODS.md 2, the confidence as it stands there: ½ CE + ½ τ² KL + token average of ‖Ĝ_t − Ĝ_s‖²."""
    hard, soft, apart, tokens = [], [], [], 0
    for row in data:
        (own, embedding), (theirs, origin) = spoken(student, row), spoken(teacher, row)
        hard.append(-own.log_softmax(-1)[row["labels"]])
        wanted = (theirs / 5).softmax(-1).detach()
        soft.append(
            25 * sum(p * (p.log() - q) for p, q in zip(wanted, (own / 5).log_softmax(-1), strict=True))
        )
        ours = slope(own.softmax(-1).max(), embedding)
        goal = slope(theirs.softmax(-1).max(), origin).detach()
        for u, v in zip(ours, goal, strict=True):
            apart.append((u / u.norm() - v / v.norm()).square().sum())
            tokens += 1
    return 0.5 * sum(hard) / len(data) + 0.5 * sum(soft) / len(data) + sum(apart) / tokens


def naive_adkd(student: Any, teacher: Any, data: list[dict[str, Any]]) -> Tensor:
    """METHODS.md 1: 0.2 CE + 0.8 soft CE at τ 2 + ‖a_t − a_s‖², maps of −log p_c for every label c."""
    total = []
    for row in data:
        (own, embedding), (theirs, origin) = spoken(student, row), spoken(teacher, row)
        wanted = (theirs / 2).softmax(-1).detach()
        value = -0.2 * own.log_softmax(-1)[row["labels"]] - 0.8 * (wanted * (own / 2).log_softmax(-1)).sum()
        for label in range(len(own)):
            ours = (embedding[0] * slope(-own.log_softmax(-1)[label], embedding)).norm(dim=-1)
            goal = (origin[0] * slope(-theirs.log_softmax(-1)[label], origin)).norm(dim=-1).detach()
            value = value + (ours / ours.norm() - goal / goal.norm()).square().sum()
        total.append(value)
    return sum(total) / len(data)


@pytest.mark.parametrize(("method", "naive"), [("gkd", naive_gkd), ("adkd", naive_adkd)])
def test_a_step_is_a_naive_loop(method: str, naive: Any, kit: Any, moved: Moved) -> None:
    models = kit.models(frozen=method == "gkd", initializer_range=0.2, attention="eager")
    student, teacher = (model.double() for model in models)
    data = kit.rows(3)
    loss = naive(student, teacher, data)
    parameters = {name: p for name, p in student.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(loss, list(parameters.values()))
    trainer = kit.trainer(
        method, (student, teacher), data=data, sgd=True, max_steps=1, per_device_train_batch_size=8
    )
    found = moved(trainer)
    assert losses(trainer)[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)  # it is logged in float32
    for name, gradient in zip(parameters, expected, strict=True):
        # float64: a difference of weights of size 1 has 1e-16, a sum over padding has some more
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("count", "batch", "accumulated"), [(8, 2, 4), (5, 2, 3)])
@pytest.mark.parametrize("method", ["gkd", "adkd", "finetune"])
def test_accumulated_batches_are_one_large_batch(
    method: str, count: int, batch: int, accumulated: int, kit: Any, moved: Moved
) -> None:
    """With texts of unequal length, averages over tokens, and a last batch that is not full."""
    found, logged = [], []
    for size, times in ((count, 1), (batch, accumulated)):
        models = tuple(model.double() for model in kit.models())
        trainer = kit.trainer(
            method, models, data=kit.rows(3, count), sgd=True, max_steps=1,
            per_device_train_batch_size=size, gradient_accumulation_steps=times,
        )  # fmt: skip
        found.append(moved(trainer))
        logged.append({k: v for k, v in losses(trainer)[0].items() if "/" in k or k == "loss"})
    for name, gradient in found[0].items():
        # float64; padding to another width adds in another order
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-7, atol=1e-11, msg=name)
    assert logged[1] == pytest.approx(logged[0], rel=1e-6)


def test_token_averages_count_tokens_not_texts(kit: Any) -> None:
    """One batch with one long and one short text: the mean is over their 12 tokens, as the authors take it."""
    student, teacher = kit.models()
    data = kit.rows(3, 2)
    trainer = kit.trainer(
        [GradientAlignment()], (student, teacher), data=data, max_steps=1, per_device_train_batch_size=2
    )
    sums = []
    for row in data:
        (own, embedding), (theirs, origin) = spoken(student, row), spoken(teacher, row)
        ours, goal = slope(own.softmax(-1).max(), embedding), slope(theirs.softmax(-1).max(), origin)
        sums.append(
            (torch.nn.functional.normalize(ours) - torch.nn.functional.normalize(goal)).square().sum()
        )
    trainer.train()
    # float32
    assert losses(trainer)[0]["loss"] == pytest.approx(sum(sums).item() / 12, rel=1e-4)


def test_a_bare_objective_has_weight_one(kit: Any, moved: Moved) -> None:
    found = [moved(kit.trainer(terms, max_steps=1)) for terms in ([HardLabel()], [Term(HardLabel(), 1.0)])]
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


def test_a_weight_scales_the_gradient(kit: Any, moved: Moved) -> None:
    found = []
    for weight in (1.0, 2.5):
        models = tuple(model.double() for model in kit.models())
        found.append(moved(kit.trainer([Term(HardLabel(), weight)], models, sgd=True, max_steps=1)))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], 2.5 * gradient, rtol=1e-9, atol=1e-14, msg=name)


def test_fine_tuning_is_transformers_own_loss(kit: Any) -> None:
    student, _ = kit.models()
    batch = kit.padded(kit.rows(3))
    expected = cross_entropy(student(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
    trainer = kit.trainer("finetune", (student, None), max_steps=1, per_device_train_batch_size=8)
    trainer.train()
    assert losses(trainer)[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)  # float32


def test_a_weight_of_zero_still_reports_its_term(kit: Any) -> None:
    trainer = kit.trainer([HardLabel(), Term(SoftLabel(), 0.0)])
    trainer.train()
    logs = losses(trainer)[0]
    assert logs["raw/soft_label"] > 0
    assert logs["weighted/soft_label"] == 0
    assert logs["loss"] == pytest.approx(logs["raw/hard_label"], rel=1e-6)  # float32


def test_each_size_that_is_tried_begins_with_the_optimizer_that_was_handed_in(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside projections, which are added to it, and with a schedule."""
    ends = []
    for failing in (False, True):
        student, teacher = kit.models()
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
        trainer = kit.trainer(
            [Term(HardLabel()), Term(HiddenStates(), 0.1)], (student, teacher), max_steps=6,
            auto_find_batch_size=failing, per_device_train_batch_size=4 if failing else 3,
            train_sampling_strategy="sequential", options={"optimizers": (optimizer, None)},
        )  # fmt: skip
        with monkeypatch.context() as patch:
            if failing:
                patch.setattr(
                    DistillationTrainer, "compute_loss", out_of_memory(lambda rows, step: step == 4)
                )
            trainer.train()
        assert trainer.batch_size == 3
        ends.append({name: weight.clone() for name, weight in student.state_dict().items()})
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name
