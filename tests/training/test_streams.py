"""Training data without a length: no gradient is counted twice, and what needs a length is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from gradistill.errors import TrainingError
from gradistill.objectives import HardLabel, SoftLabel, Term


class Stream(IterableDataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def seen_by_step(kit: Any, data: Any, **options: Any) -> tuple[list[list[int]], Any]:
    """The rows of each optimizer step, and the student."""
    models = kit.models()
    trainer = kit.trainer([Term(HardLabel())], models, data=data, sgd=True, **options)
    steps: list[list[int]] = []
    fetch = trainer.get_batch_samples

    def noting(*arguments: Any) -> Any:
        batches, counts = fetch(*arguments)
        if batches:
            steps.append([row for batch in batches for row in batch["index"].tolist()])
        return batches, counts

    trainer.get_batch_samples = noting
    trainer.train()
    return steps, models[0]


def test_batches_that_fill_no_step_wait_for_the_next_pass(kit: Any) -> None:
    """Five batches a pass, and four a step: the fifth begins the second step, and each step is one mean."""
    rows = kit.rows(3, 20)
    steps, student = seen_by_step(
        kit, Stream(rows), gradient_accumulation_steps=4, max_steps=2, per_device_train_batch_size=4
    )
    assert steps == [[*range(16)], [*range(16, 20), *range(12)]]
    reordered = [rows[place] for step in steps for place in step]
    _, plain = seen_by_step(
        kit, reordered, gradient_accumulation_steps=4, max_steps=2, per_device_train_batch_size=4,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    for name, weight in plain.state_dict().items():
        assert torch.allclose(student.state_dict()[name], weight, atol=1e-7), name


def test_passes_that_fill_no_step_come_together(kit: Any) -> None:
    steps, _ = seen_by_step(
        kit, Stream(kit.rows(3, 8)), gradient_accumulation_steps=4, max_steps=2, per_device_train_batch_size=4
    )
    assert steps == [[*range(8), *range(8)]] * 2


def test_a_temperature_that_moves_over_epochs_needs_some(kit: Any) -> None:
    with pytest.raises(TrainingError, match="soft_label anneals over the epochs, and .* no number of epochs"):
        kit.trainer([Term(SoftLabel(4.0, anneal=True))], data=Stream(kit.rows(3)), max_steps=3)


def test_going_on_within_a_later_pass_is_refused(kit: Any) -> None:
    def trainer(**options: Any) -> Any:
        return kit.trainer(
            [Term(HardLabel())], kit.models(), data=Stream(kit.rows(3, 20)), max_steps=9,
            per_device_train_batch_size=4, save_strategy="steps", save_steps=1, **options,
        )  # fmt: skip

    trainer().train()
    run = kit.folder / "run"
    trainer().train(resume_from_checkpoint=str(run / "checkpoint-3"))
    with pytest.raises(TrainingError, match=r"no length, and .*checkpoint-7 is from pass 2"):
        trainer().train(resume_from_checkpoint=str(run / "checkpoint-7"))
    trainer(ignore_data_skip=True).train(resume_from_checkpoint=str(run / "checkpoint-7"))


def test_a_stop_stays_a_stop_while_batches_wait(kit: Any) -> None:
    """Five batches a pass, four a step: at the end of the first pass one waits."""

    class Stop(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    trainer = kit.trainer(
        [Term(HardLabel())], kit.models(), data=Stream(kit.rows(3, 20)), gradient_accumulation_steps=4, max_steps=3,
        per_device_train_batch_size=4,
    )  # fmt: skip
    trainer.add_callback(Stop())
    trainer.train()
    assert trainer.state.global_step == 1
