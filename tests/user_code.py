"""The public API as a user's code has it. pyright checks the types of this file; ``test_public_names.py`` runs it."""

from __future__ import annotations

from typing import assert_type

from transformers import PreTrainedModel, TrainingArguments

import gradistill
from gradistill import (
    Collator,
    DataChoice,
    DistillationTrainer,
    GradistillError,
    Loyalty,
    Predictions,
    Recipe,
    StoreChoice,
    Term,
    load_classifier,
    load_recipe,
    load_tokenizer,
    student_from_teacher,
)
from gradistill.objectives import AttributionMap, HardLabel, Objective, SoftLabel


def recipes_and_commands(data_folder: str, teacher_folder: str, output: str) -> None:
    recipe = load_recipe("kd", changes=["student.layers=2", "training.epochs=1"])
    assert_type(recipe, Recipe)
    data = DataChoice(data_folder)
    metrics = gradistill.distill(
        teacher_folder, data, f"{output}/student", recipe, signals=StoreChoice("online")
    )
    print(metrics["loyalty"])
    gradistill.audit(teacher_folder, [f"{output}/student"], data, f"{output}/audit")
    print(gradistill.explain(teacher_folder, ["a lovely film"]).words[0].score)
    predictor = gradistill.load_predictor(teacher_folder)
    assert_type(predictor, gradistill.TextPredictor | gradistill.TokenPredictor)
    print(dict(zip(predictor.labels or (), predictor(["a lovely film"])[0], strict=True)))
    gradistill.predict(teacher_folder, f"{data_folder}/validation.csv", f"{output}/predicted.jsonl")


def trainer(data_folder: str, teacher_folder: str, output: str) -> Loyalty:
    teacher, _ = load_classifier(teacher_folder)
    assert_type(teacher, PreTrainedModel)
    tokenizer = load_tokenizer(teacher_folder)
    splits = gradistill.load_splits(data_folder)
    rows = gradistill.encode(splits.rows["validation"], tokenizer, splits.task, max_length=32).dataset
    objectives: list[Term | Objective] = [
        Term(HardLabel(), weight=0.2),
        Term(SoftLabel(temperature=2.0), weight=0.8),
        AttributionMap(),
    ]
    student = student_from_teacher(teacher, layers=2)
    DistillationTrainer(
        student,
        TrainingArguments(output, max_steps=1, report_to=[]),
        data_collator=Collator(tokenizer),
        train_dataset=rows,
        teacher=teacher,
        objectives=objectives,
    ).train()
    collate = Collator(tokenizer)
    reference = gradistill.predict_rows(teacher, rows, collate)
    assert_type(reference, Predictions)
    return gradistill.loyalty(
        gradistill.predict_rows(student, rows, collate, labels=reference.labels), reference
    )


def errors() -> str:
    try:
        load_recipe("no such method")
    except GradistillError as error:
        return error.remedy
    return ""
