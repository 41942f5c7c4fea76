"""Many rows at once: what one row alone would get, in whatever company, and the model left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tr
from datasets import Dataset

from computed import path_of, run_of
from families import build
from gradistill.attribution.quadrature import integrated_gradients
from gradistill.attribution.targets import Target
from gradistill.auditing.attributions import RowAttributions, attribute
from gradistill.auditing.methods import method
from gradistill.auditing.predictions import predict_rows
from gradistill.batch import Batch
from gradistill.data import Collator
from gradistill.errors import GradistillError, ModelError, RecipeError
from gradistill.models.probe import Probe
from small import WORDS
from wordpiece import tokenizer

TARGET = Target("log_odds", "gold")


def rows_of(lengths: list[int]) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(5, 64, (n,), generator=generator).tolist()} for n in lengths]


def collate(rows: Any) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": pad([torch.ones_like(x) for x in ids], batch_first=True),
    }


def model_of(labels: int = 3) -> Any:
    """With biases, as training leaves them: without any, normalisation is singular at the zero baseline."""
    model = build("bert", labels=labels, attention="eager", initializer_range=0.3).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def ig(steps: Any, **options: Any) -> Any:
    return method("integrated_gradients", steps=steps, baseline="zero", **options)


def by_place(found: Any) -> list[RowAttributions]:
    return sorted(found, key=lambda one: one.place)


@pytest.mark.parametrize("labels", [None, [0, 2, 1, 1]])
def test_fixed_steps_equal_each_row_alone(labels: list[int] | None) -> None:
    model, rows = model_of(), rows_of([5, 9, 3, 7])
    found = by_place(attribute(model, rows, collate, method=ig(6), labels=labels, tokens_at_once=18))
    probe = Probe.find(model)
    for row, one in zip(rows, found, strict=True):
        batch = Batch.of(collate([row]))
        with probe.tapped(model) as taps:
            logits = model(**batch.inputs).logits
        at = logits.argmax(-1) if labels is None else torch.tensor([labels[one.place]])
        alone = integrated_gradients(
            path_of(run_of(model, probe, batch), taps[0].detach(), TARGET, at), steps=6
        )
        assert (one.label, one.nodes) == (int(at), 6)
        torch.testing.assert_close(one.attributions, alone[0, 0], rtol=1e-8, atol=1e-12)


def test_gradient_x_input_is_one_right_riemann_step() -> None:
    model, rows = model_of(), rows_of([5, 9, 3])
    probe, batch = Probe.find(model), Batch.of(collate(rows))
    with probe.tapped(model) as taps:
        logits = model(**batch.inputs).logits
    expected = integrated_gradients(
        path_of(run_of(model, probe, batch), taps[0].detach(), TARGET, logits.argmax(-1)),
        steps=1,
        rule="right_riemann",
    )
    for one in attribute(model, rows, collate, method=method("gradient_x_input"), tokens_at_once=10):
        length = len(rows[one.place]["input_ids"])
        torch.testing.assert_close(one.attributions, expected[one.place, 0, :length], rtol=1e-8, atol=1e-12)
        assert one.nodes == 1


@pytest.mark.parametrize("labels", [1, 2])
def test_steps_by_row_reach_the_tolerance_and_what_many_steps_find(labels: int) -> None:
    model, rows = model_of(labels), rows_of([5, 9, 3, 7])
    found = by_place(attribute(model, rows, collate, method=ig("auto", tolerance=1e-4)))
    reference = by_place(attribute(model, rows, collate, method=ig(400)))
    for one, other in zip(found, reference, strict=True):
        assert abs(one.residual) <= 1e-4
        assert abs(other.residual) <= 1e-4
        scale = other.attributions.abs().max().item()
        torch.testing.assert_close(one.attributions, other.attributions, rtol=0, atol=1e-3 * scale)


def test_no_forward_pass_holds_more_tokens_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, sizes = model_of(), rows_of([5, 9, 3, 7, 4, 4]), []
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        sizes.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    for steps in (2, 50, "auto"):
        list(attribute(model, rows, collate, method=ig(steps), tokens_at_once=20))
    assert max(sizes[1:]) <= 20  # the first is the probe's look
    assert len(sizes) > 100


def test_the_model_is_left_as_it_was_even_by_who_stops_listening() -> None:
    model = model_of().train()
    next(attribute(model, rows_of([5, 9]), collate, method=ig(2), tokens_at_once=9))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RecipeError, match=r"occlusion returns scores(.|\n)*gradient_x_input"):
        attribute(model, [], collate, method=method("occlusion"))


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            **row,
            "attention_mask": [1] * len(row["input_ids"]),
            "special_tokens_mask": [1, *[0] * (len(row["input_ids"]) - 1)],
        }
        for row in rows_of([5, 9, 3, 7])
    ]


def test_rows_without_a_length_are_read(rows: list[dict[str, Any]]) -> None:
    plain = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows]
    model, collate = build("bert"), Collator(tokenizer(WORDS))
    found = [
        list(attribute(model, each, collate, method=ig(4))) for each in (plain, Dataset.from_list(plain))
    ]
    assert [row.place for row in found[0]] == [row.place for row in found[1]]


@pytest.mark.parametrize("explain", [attribute, predict_rows])
def test_what_cannot_be_explained_is_refused(explain: Any, rows: list[dict[str, Any]]) -> None:
    data, collate = Dataset.from_list(rows), Collator(tokenizer(WORDS))

    def run(model: Any, some: Any = data, **more: Any) -> None:
        found = explain(model, some, collate, **more)
        next(found) if explain is attribute else found

    model = build("bert", labels=3)
    for wrong, message in (
        (np.zeros(len(rows) + 1, int), f"{len(rows) + 1} labels to explain, and {len(rows)} rows"),
        (np.zeros(1, int), "1 labels to explain"),
        (np.full(len(rows), 7), "label to explain is 7, and the model has 3"),
        (np.full(len(rows), -1), "label to explain is -1"),
    ):
        with pytest.raises(GradistillError, match=message):
            run(model, labels=wrong)
    with pytest.raises(GradistillError, match="no rows"):
        run(model, data.select([]))
    of_tokens = tr.AutoModelForTokenClassification.from_config(model.config).eval()
    with pytest.raises(ModelError, match="labels tokens"):
        run(of_tokens)
    if explain is predict_rows:  # narrow models have no maps, and are predicted
        assert predict_rows(model.bfloat16(), data, collate).logits.shape == (len(rows), 3)
        with pytest.raises(GradistillError, match="1 labels to explain"):
            run(model.bfloat16(), labels=np.zeros(1, int))
        with pytest.raises(ModelError, match="labels tokens"):
            run(of_tokens.bfloat16())


def test_a_narrow_model_has_no_attributions(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match="lower precision than float32"):
        next(attribute(build("bert").bfloat16(), rows, Collator(tokenizer(WORDS))))
