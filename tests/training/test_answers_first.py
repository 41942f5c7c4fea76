"""Answer-first gradients: what a step does with the gradients of answers and of all else (METHODS.md 8.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

from gradistill.batch import Batch
from gradistill.errors import RecipeError, TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.objectives import AttributionMap, HardLabel, HiddenStates, Rationale, SoftLabel, Term
from gradistill.objectives.base import EpochProgress
from gradistill.recipe import ComputeSettings, load_recipe
from gradistill.training.answers_first import AnswersFirst
from training.conftest import AGAINST

pytestmark = pytest.mark.usefixtures("unchecked")
ALONG = [Term(HardLabel(), 0.3), Term(SoftLabel(), 0.7), Term(Rationale(), 40.0)]


def doubled(kit: Any, **changes: Any) -> tuple[Any, Any]:
    student, teacher = kit.models(**changes)
    return student.double(), teacher.double()


def gradients(kit: Any, terms: Sequence[Term]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those of the answers and of the rest, by one call of autograd each on the loss of all eight rows."""
    trainer = kit.trainer(terms, doubled(kit))
    student = trainer.model.train()
    batch = Batch.of(kit.padded(kit.rows(3)))
    with second_order_attention(student):
        distances, _ = trainer.step.distances(student, batch, EpochProgress())
    named = {name: p for name, p in student.named_parameters() if p.requires_grad}
    losses = [
        sum(t.weight * distances[t.name].mean() for t in terms if t.objective.is_prediction_loss is answers)
        for answers in (True, False)
    ]
    found = [
        torch.autograd.grad(loss, list(named.values()), retain_graph=True, materialize_grads=True)
        for loss in losses
    ]
    return dict(zip(named, found[0], strict=True)), dict(zip(named, found[1], strict=True))


def expected(answers: dict[str, Tensor], rest: dict[str, Tensor], rule: str, cap: float) -> dict[str, Tensor]:
    """By numpy's way of it: one long vector each."""
    a, r = (torch.cat([g.flatten() for g in each.values()]) for each in (answers, rest))
    if rule in ("project", "cap") and a @ r < 0:
        r = r - (a @ r) / (a @ a) * a
    if rule == "cap" and r.norm() > cap * a.norm():
        r = cap * a.norm() * r / r.norm()
    parts = (a + r).split([g.numel() for g in answers.values()])
    return {name: part.view_as(g) for (name, g), part in zip(answers.items(), parts, strict=True)}


CASES = {
    "project, against": (AGAINST, "project", 1.0),
    "project, along": (ALONG, "project", 1.0),
    "cap, against": (AGAINST, "cap", 0.25),
    "cap, along": (ALONG, "cap", 1.0),
    "log": (AGAINST, "log", 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_takes_the_combined_gradient(case: str, kit: Any, moved: Any) -> None:
    """Of four batches that make a step, the one that a single large batch has."""
    terms, rule, cap = CASES[case]
    answers, rest = gradients(kit, terms)
    wanted = expected(answers, rest, rule, cap)
    trainer = kit.trainer(
        terms, doubled(kit), sgd=True, max_steps=1, options=kit.rule(rule, cap),
        per_device_train_batch_size=2, gradient_accumulation_steps=4,
    )  # fmt: skip
    found = moved(trainer)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12)
    a, r = (torch.cat([g.flatten() for g in each.values()]) for each in (answers, rest))
    cosine = float(a @ r / a.norm() / r.norm())
    assert cosine < 0 if terms is AGAINST else cosine > 0, "or this test looks at nothing"
    logs = trainer.state.log_history[0]
    assert logs["gradient_cosine"] == pytest.approx(cosine, rel=1e-5)
    assert logs["gradient_norm_ratio"] == pytest.approx(float(r.norm() / a.norm()), rel=1e-5)
    total = sum(logs[f"weighted/{term.name}"] for term in terms)
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_off_is_the_step_as_it_was_and_log_nearly(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the weights of a trainer that is told nothing; log adds the same gradients in two parts."""
    found = {}
    for rule in (None, "off", "log"):
        student, teacher = kit.models(hidden_dropout_prob=0.2)
        options = kit.rule(rule) if rule else {}
        kit.trainer(AGAINST, (student, teacher), options=options, sgd=True, max_grad_norm=1.0).train()
        found[rule] = student.state_dict()
    for name, weight in found[None].items():
        assert torch.equal(weight, found["off"][name]), name
        torch.testing.assert_close(weight, found["log"][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", ["project", "cap"])
def test_under_bf16_each_gradient_is_that_of_its_own_loss(
    rule: str, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a difference of two rounded ones: a small rest is as exact as a large one."""
    cap = 1e-3
    terms = [Term(SoftLabel()), Term(Rationale(), -1e-2)]
    trainer = kit.trainer(
        terms, options=kit.rule(rule, cap), bf16=True, per_device_train_batch_size=8, max_steps=1
    )
    named = dict(trainer.model.named_parameters())
    alone: list[dict[str, Tensor]] = []
    real = AnswersFirst.split

    def watched(self: Any, *losses: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            for loss in losses:
                found = torch.autograd.grad(
                    loss, list(named.values()), retain_graph=True, materialize_grads=True
                )
                alone.append(dict(zip(named, found, strict=True)))
        return real(self, *losses)

    monkeypatch.setattr(AnswersFirst, "split", watched)
    found = caught_by(trainer)
    a, r = ({name: g.double() for name, g in each.items()} for each in alone)
    wanted = expected(a, r, rule, cap)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name].double(), gradient, rtol=1e-6, atol=1e-9)
    if rule == "project":
        assert sum(float((a[name] * r[name]).sum()) for name in a) < 0, "or this test looks at nothing"


def caught_by(trainer: Any) -> dict[str, Tensor]:
    """The gradients right before the step of the optimizer."""
    found: dict[str, Tensor] = {}
    real = trainer._get_grad_norm

    def watched(*args: Any, **kwargs: Any) -> Any:
        named = trainer.model.named_parameters()
        found.update({name: p.grad.clone() for name, p in named if p.grad is not None})
        return real(*args, **kwargs)

    trainer._get_grad_norm = watched
    trainer.train()
    return found


def test_a_gradient_scaler_scales_both(kit: Any) -> None:
    """As under float16: both gradients are scaled, so that what comes out is the scaled combination."""
    plane = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    accelerator = kit.trainer([HardLabel()]).accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    first = AnswersFirst(ComputeSettings(gradient_conflict="cap", gradient_cap=0.5), torch.device("cpu"))
    with first.step([plane], accelerator):
        # g_a = (2, 0) and g_r = (-5, 7): without its part along g_a (0, 7), half as long as g_a (0, 1)
        loss = first.split(2 * plane[0], -5 * plane[0] + 7 * plane[1])
        assert loss.item() == 6 - 15 + 28
        accelerator.scaler.scale(loss).backward()
    assert plane.grad is not None
    assert torch.equal(plane.grad / 1024, torch.tensor([2.0, 1.0]))


def test_a_lazy_term_leaves_the_steps_between_as_they_are(kit: Any) -> None:
    """There is one gradient only on them: nothing is combined, and nothing is logged."""
    lazy = [Term(HardLabel()), Term(AttributionMap(), 3.0, every=2)]
    found = {}
    for name in ("off", "cap"):
        student, teacher = doubled(kit)
        trainer = kit.trainer(lazy, (student, teacher), options=kit.rule(name, 1e-9), sgd=True, max_steps=2)
        trainer.train()
        found[name] = trainer.state.log_history
    alone = kit.trainer([Term(HardLabel())], doubled(kit), sgd=True, max_steps=2)
    alone.train()
    assert ["gradient_cosine" in logs for logs in found["cap"][:2]] == [True, False]
    assert not any("gradient_cosine" in logs for logs in found["off"])
    # with next to nothing left of the map's gradient, the steps are those of the labels alone
    assert found["cap"][1]["raw/hard_label"] == pytest.approx(alone.state.log_history[1]["loss"], rel=1e-6)
    assert found["off"][1]["raw/hard_label"] != pytest.approx(alone.state.log_history[1]["loss"], rel=1e-6)


def test_the_log_holds_means_over_steps(kit: Any) -> None:
    runs = {}
    for steps in (1, 3):
        trainer = kit.trainer("against", options=kit.rule("project"), max_steps=3, logging_steps=steps)
        trainer.train()
        runs[steps] = [logs for logs in trainer.state.log_history if "loss" in logs]
    for key in ("gradient_cosine", "gradient_norm_ratio"):
        mean = sum(logs[key] for logs in runs[1]) / 3
        assert runs[3][0][key] == pytest.approx(mean, rel=1e-4)
        assert len({logs[key] for logs in runs[1]}) == 3


def test_a_step_that_did_not_end_leaves_nothing_behind(kit: Any) -> None:
    """auto_find_batch_size begins again after an error in the middle of a step."""
    ends = []
    for broken in (False, True):
        trainer = kit.trainer(
            "against", doubled(kit), options=kit.rule("project"), sgd=True, per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
        )  # fmt: skip
        if broken:
            batch = kit.padded(kit.rows(3))
            trainer.accelerator.gradient_state._set_sync_gradients(False)
            with second_order_attention(trainer.model):
                trainer.training_step(trainer.model, batch)
        trainer.train()
        ends.append(trainer.model.state_dict())
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name


def test_a_loss_outside_of_a_step_is_whole(kit: Any) -> None:
    """Whoever asks for it gets a gradient of all terms."""
    found = {}
    for name in ("off", "project"):
        trainer = kit.trainer("against", doubled(kit), options=kit.rule(name))
        student = trainer.model.train()
        with second_order_attention(student):
            trainer.compute_loss(student, kit.padded(kit.rows(3))).backward()
        found[name] = {key: p.grad for key, p in student.named_parameters()}
    for key, gradient in found["off"].items():
        assert torch.equal(gradient, found["project"][key]), key


@pytest.mark.parametrize(
    ("method", "fault"),
    {
        "finetune": "there is no objective other than hard_label",
        "kd": "there is no objective other than hard_label and soft_label",
        "pretrain": "there is neither hard_label nor soft_label",
        "tinybert": "never run on the same step",
    }.items(),
)
def test_a_rule_without_two_gradients_is_refused(method: str, fault: str) -> None:
    for rule in ("log", "project", "cap"):
        with pytest.raises(RecipeError, match=f"(?s)compute.gradient_conflict is {rule}, and .*{fault}"):
            load_recipe(method, changes=[f"compute.gradient_conflict={rule}"])


@pytest.mark.parametrize("method", ["finetune", "kd", "tinybert", "adkd"])
def test_auto_is_taken_by_every_method(method: str) -> None:
    """It acts on what it finds, and may find nothing."""
    recipe = load_recipe(method, changes=["compute.gradient_conflict=auto", "compute.gradient_cap=2"])
    assert recipe.compute.gradient_cap == 2


def test_weights_of_nothing_count_as_no_term(kit: Any) -> None:
    for terms in (
        [Term(HardLabel(), 0.0), Term(Rationale())],
        [HardLabel(), Term(Rationale(), 0.0)],
    ):
        with pytest.raises(RecipeError, match=r"compute\.gradient_conflict is project, and there is n"):
            kit.trainer(terms, options=kit.rule("project"))


def test_off_may_be_written_bare() -> None:
    for written in ("off", "'off'", "false"):
        recipe = load_recipe("rationale", changes=[f"compute.gradient_conflict={written}"])
        assert recipe.compute.gradient_conflict == "off"
    assert load_recipe("adkd").compute.gradient_conflict == "off"


def test_a_cap_that_nothing_reads_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"(?s)gradient_cap.*project limits nothing"):
        load_recipe("rationale", changes=["compute.gradient_conflict=project", "compute.gradient_cap=2"])


@pytest.mark.parametrize("flag", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_sharded_gradients_are_refused(flag: str, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer.create_accelerator_and_postprocess

    def create(self: Any) -> None:
        real(self)
        setattr(self, flag, True)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    with pytest.raises(TrainingError, match=r"under compute\.gradient_conflict: project"):
        kit.trainer([HardLabel(), HiddenStates()], options=kit.rule("project"))


@pytest.mark.parametrize(
    "argument",
    [
        {"torch_compile": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    ],
    ids=["torch_compile", "re-entrant checkpoints"],
)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_what_has_one_backward_pass_is_refused(argument: dict[str, Any], kit: Any) -> None:
    with pytest.raises(TrainingError, match="one backward pass only"):
        kit.trainer([HardLabel(), HiddenStates()], options=kit.rule("project"), **argument)


def test_activation_checkpoints_change_no_gradient(kit: Any, moved: Any) -> None:
    terms = [HardLabel(), Term(HiddenStates(), -1.0)]
    found = [
        moved(kit.trainer(terms, doubled(kit), options=kit.rule("project"), sgd=True, max_steps=1, **more))
        for more in ({}, {"activation_checkpointing": True})
    ]
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12)
