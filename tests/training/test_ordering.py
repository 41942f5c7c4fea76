"""The order of an epoch follows from the seed and its number, in every process, however many workers there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.data import RandomSampler

from gradistill.objectives import HardLabel, Term
from gradistill.training.sampler import SeededByEpoch
from slow import slow


def order(seed: int, epoch: int) -> list[int]:
    return list(SeededByEpoch(RandomSampler(range(30)), seed, lambda: epoch))


def test_an_epoch_has_one_order_whatever_was_drawn_before() -> None:
    first = order(0, 1)
    torch.rand(7)
    assert order(0, 1) == first
    assert sorted(first) == list(range(30))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 2), (1, 1), (1, 0)])
def test_other_epochs_and_seeds_have_other_orders(seed: int, epoch: int) -> None:
    assert order(seed, epoch) != order(0, 1)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_workers_change_no_weight(strategy: str, kit: Any) -> None:
    """Nothing that is drawn depends on how many processes load the rows."""
    found = []
    for workers in (0, 2):
        student, teacher = kit.models(hidden_dropout_prob=0.2)
        trainer = kit.trainer(
            "kd", (student, teacher), max_steps=6, per_device_train_batch_size=2,
            train_sampling_strategy=strategy, dataloader_num_workers=workers,
        )  # fmt: skip
        trainer.train()
        found.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name


@pytest.mark.parametrize("strategy", ["random", slow("group_by_length"), "batch_rebalance"])
def test_seeds_decide_the_order_of_every_strategy(strategy: str, kit: Any) -> None:
    rows = [{**row, "length": len(row["input_ids"])} for row in kit.rows(3, 24)]
    found = []
    for seeds in ({"seed": 0}, {"seed": 0}, {"seed": 1}, {"seed": 0, "data_seed": 5}):
        seen: list[int] = []

        def collate(some: Any, seen: list[int] = seen) -> Any:
            seen.extend(row["index"] for row in some)
            return kit.padded(some)

        trainer = kit.trainer(
            [Term(HardLabel())], data=Dataset.from_list(rows), options={"data_collator": collate},
            train_sampling_strategy=strategy, max_steps=6, **seeds,
        )  # fmt: skip
        trainer.train()
        found.append(seen)
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3]
