"""What DistillationTrainer is given: Trainer's order of parameters, and wrong types refused in whole sentences."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from families import build
from gradistill import DistillationTrainer
from gradistill.batch import Batch
from gradistill.errors import TrainingError
from gradistill.objectives import EpochProgress, Term
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.soft_label import SoftLabel


def refusal(*positional: Any, **named: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        DistillationTrainer(*positional, **named)
    return str(caught.value)


def test_the_first_parameters_are_the_trainers_and_ours_are_keywords() -> None:
    theirs = list(inspect.signature(Trainer).parameters.values())
    ours = list(inspect.signature(DistillationTrainer).parameters.values())
    assert ours[: len(theirs)] == theirs
    assert {p.name for p in ours[len(theirs) :]} == {
        "teacher", "objectives", "teacher_facts", "shared_embeddings", "compute",
    }  # fmt: skip
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_arguments_in_the_trainers_order_are_taken(kit: Any) -> None:
    student, teacher = kit.models()
    arguments = kit.arguments(max_steps=1, learning_rate=0.03)
    trainer = DistillationTrainer(
        student, arguments, kit.padded, kit.rows(3), teacher=teacher, objectives=[HardLabel(), SoftLabel()]
    )
    trainer.train()
    assert (trainer.args.learning_rate, trainer.state.global_step) == (0.03, 1)


def test_a_teacher_in_the_place_of_the_arguments_is_refused(kit: Any) -> None:
    student, teacher = kit.models()
    message = refusal(student, teacher, objectives=[HardLabel(), SoftLabel()])
    assert message.startswith("`args` is a BertForSequenceClassification.")
    assert "To do: pass the teacher as teacher=…" in message


@pytest.mark.parametrize(
    ("model", "named", "words"),
    [
        ("bert-base", {}, "`model` is 'bert-base'."),
        (None, {}, "`model` is missing."),
        ("kit", {"args": {"max_steps": 3}}, "`args` is a dict."),
        ("kit", {"teacher": "runs/teacher"}, "`teacher` is 'runs/teacher'."),
        ("kit", {"objectives": HardLabel()}, "`objectives` is a HardLabel."),
        ("kit", {"objectives": "hard_label"}, "`objectives` is 'hard_label'."),
        ("kit", {"objectives": None}, "`objectives` is None."),
        ("kit", {"objectives": [HardLabel]}, "`objectives` holds the class HardLabel."),
        ("kit", {"objectives": ["hard_label"]}, "`objectives` holds 'hard_label'."),
        (
            "kit",
            {"objectives": [HardLabel(), Term(HardLabel(), 2.0)]},
            "`objectives` holds hard_label more than once.",
        ),
        (
            "kit",
            {"objectives": []},
            "`objectives` is empty. DistillationTrainer needs at least one objective.",
        ),
    ],
)
def test_a_wrong_type_is_refused_in_a_sentence(model: Any, named: Any, words: str, kit: Any) -> None:
    student = kit.models()[0] if model == "kit" else model
    message = refusal(student, **{"objectives": [HardLabel()], **named})
    assert message.startswith(words)
    assert "To do: " in message


def test_a_refusal_leaves_no_folder(kit: Any) -> None:
    student, teacher = kit.models(num_hidden_layers=1)
    teacher.config.problem_type = "multi_label_classification"
    with pytest.raises(TrainingError, match="The teacher has problem_type 'multi_label_classification'"):
        kit.trainer([HardLabel(), SoftLabel()], (student, teacher), output_dir=str(kit.folder / "a" / "b"))
    assert not any(kit.folder.iterdir())


def test_multi_hot_labels_are_no_class_probabilities(kit: Any) -> None:
    """Cross-entropy would take them as such, and the loss of evaluation would be another."""
    data = [{**row, "labels": [1.0, 0.0, 1.0]} for row in kit.rows(3)]
    trainer = kit.trainer([HardLabel()], data=data)
    with pytest.raises(TrainingError, match=r"shape \(4, 3\): several labels a row"):
        trainer.train()
    with pytest.raises(TrainingError, match="several labels a row"):
        trainer.evaluate(data)
    floats = [{**row, "labels": float(row["labels"])} for row in kit.rows(3)]
    with pytest.raises(TrainingError, match="labels of a batch are float32s, and the student has 3 classes"):
        kit.trainer([HardLabel()], data=floats).train()


def test_rows_without_a_label_do_not_count_in_the_average_of_the_labels() -> None:
    """By hand: three of four rows have a label, and the mean over the four values is that over the three."""
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    gold = torch.tensor([2, -100, 0, 1])
    batch = Batch({}, torch.ones(4, 5).bool(), gold)
    found = HardLabel().distance({"logits": logits}, {}, batch, EpochProgress())
    kept = [-logits[row].log_softmax(-1)[label] for row, label in enumerate(gold.tolist()) if label >= 0]
    torch.testing.assert_close(found.mean(), sum(kept) / 3)
    assert found[1] == 0


def test_a_step_without_any_label_moves_nothing(kit: Any) -> None:
    data = [{**row, "labels": -100} for row in kit.rows(3)]
    student, teacher = kit.models()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    kit.trainer([HardLabel()], (student, teacher), data=data).train()
    assert all(torch.equal(p, before[name]) for name, p in student.named_parameters())


def test_row_numbers_reach_a_stored_teacher_past_columns_that_go(kit: Any) -> None:
    """With remove_unused_columns, Trainer's default, and text beside the tokens."""
    student, teacher = kit.models()
    noting = kit.noting(teacher)
    data = Dataset.from_list([{**row, "text": "a text", "index": 70 + row["index"]} for row in kit.rows(3)])
    trainer = kit.trainer([HardLabel(), SoftLabel()], (student, noting), data=data, max_steps=2)
    trainer.train()
    assert trainer.args.remove_unused_columns
    assert sorted(row for rows in noting.rows for row in rows) == [70 + k for k in range(8)]


def test_inputs_embeds_are_refused_where_a_teacher_reads_tokens(kit: Any) -> None:
    table = torch.randn(64, 16)

    def collate(features: Any) -> Any:
        batch = kit.padded(features)
        ids = batch.pop("input_ids")
        return {**batch, "inputs_embeds": table[ids]}

    with pytest.raises(TrainingError, match="inputs_embeds and no input_ids, which soft_label cannot use"):
        kit.trainer([HardLabel(), SoftLabel()], options={"data_collator": collate}).train()


def test_model_init_trains_gradient_objectives(kit: Any) -> None:
    """The student of each training is another object than that which the trainer began with."""
    _, teacher = kit.models()
    made: list[Any] = []

    def init() -> Any:
        made.append(build("bert", seed=1, num_hidden_layers=2, hidden_dropout_prob=0.0))
        return made[-1]

    trainer = kit.trainer("gkd", (None, teacher), options={"model_init": init, "shared_embeddings": True})
    trainer.train()
    assert trainer.model is made[-1]
    assert len(made) == 2
    assert any("raw/gradient_alignment" in entry for entry in trainer.state.log_history)
    assert trainer.model.config._attn_implementation == "sdpa"
