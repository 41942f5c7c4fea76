"""The models of an audit: teacher, students and a reference, over the same labels and tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.commands.text_lengths import LoadedModel
from gradistill.data.labels import match_names, match_numbers, numbers_of
from gradistill.errors import DataError, RecipeError
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name
from gradistill.models.random_head import has_head
from gradistill.models.student import pair_warnings, same_weights
from gradistill.models.tokenizers import check_same_tokens


@dataclass(frozen=True)
class AuditModels:
    """The models in memory, on the accelerator if there is one. ``readers`` has all of them, teacher first."""

    teacher: PreTrainedModel
    students: list[PreTrainedModel]
    names: list[str]
    tokenizer: PreTrainedTokenizerBase
    student_tokenizers: list[PreTrainedTokenizerBase]
    readers: list[LoadedModel]
    reference: PreTrainedModel | None = None

    @classmethod
    def load(
        cls, teacher: ModelSource, students: Sequence[ModelSource], reference: ModelSource | None = None
    ) -> AuditModels:
        """Raises ModelError for models that cannot be loaded, DataError for models of other labels or tokens."""
        compared = [*students, *([] if reference is None else [reference])]
        tokenizer, *own = (load_tokenizer(name) for name in (teacher, *compared))
        for student in own:
            check_same_tokens(student, tokenizer)
        loaded = [load_classifier(name)[0] for name in (teacher, *compared)]
        for model, name in zip(loaded[1:], map(model_name, compared), strict=True):
            _in_order(loaded[0], model, name)
        device: Any = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        for model in loaded:
            model.to(device)
            set_padding(model, tokenizer)
        names = _short_names([model_name(student) for student in students])
        owners = ["teacher", *(f"student {name}" for name in names), "reference"][: len(loaded)]
        folders = map(model_folder, (teacher, *compared))
        readers = [LoadedModel(*each) for each in zip(owners, folders, loaded, strict=True)]
        ours = loaded[1 : 1 + len(students)]
        return cls(loaded[0], ours, names, tokenizer, own, readers, None if reference is None else loaded[-1])

    def warnings(self) -> list[str]:
        """What makes the figures of a pair mean less than they seem to."""
        named = list(zip(self.names, self.students, strict=True))
        alike = [
            f"the students {a} and {b} hold the same weights"
            for (a, one), (b, other) in combinations(named, 2) if same_weights(one, other)
        ]  # fmt: skip
        if self.reference is not None and same_weights(self.teacher, self.reference):
            alike.append("the reference holds the teacher's weights; take a teacher of another seed")
        depth, *depths = (reader.probe.layers for reader in self.readers)
        pairs = [
            pair_warnings(self.teacher, student, f"student {name}", layers=(depth, own))
            for (name, student), own in zip(named, depths, strict=False)  # behind the students the reference
        ]
        floorless = [
            f"the figures of {name} have no floor: its head cannot be told from the rest of the model"
            for name, student in named if not has_head(student)
        ]  # fmt: skip
        if not self.tokenizer.is_fast:
            alike.append("figures on masked words are left out: the tokenizer has no character offsets")
        return [*(warning for found in pairs for warning in found), *alike, *floorless]


def check_students(students: Any) -> None:
    """Raise RecipeError where ``students`` is no list."""
    if isinstance(students, str | bytes | os.PathLike | tuple) or not isinstance(students, Sequence):
        raise RecipeError(
            f"students is of the type {type(students).__name__}",
            expected="a list of models, each a path, a hub id or a pair (model, tokenizer)",
            remedy="put the student into a list: [student]",
        )


def _short_names(named: Sequence[str]) -> list[str]:
    """The last part of each path; the whole of it where two end alike, and its number where that does not help."""
    short = [Path(name).name for name in named]
    found = [name if short.count(name) == 1 else full for name, full in zip(short, named, strict=True)]
    return [name if found.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(found, start=1)]


def _in_order(teacher: PreTrainedModel, student: PreTrainedModel, name: str) -> None:
    """Have the student give its outputs in the teacher's order. Raises DataError for other labels."""
    ours, theirs = list(label_names(teacher).values()), list(label_names(student).values())
    match = match_names(ours, theirs) if len(ours) == len(theirs) else None
    if match is None and len(ours) == len(theirs):
        match = match_numbers(numbers_of(ours), numbers_of(theirs))
    if match is None:
        raise DataError(
            f"The labels of the teacher and of {name} differ.\n"
            f"  teacher: {', '.join(ours)}\n  {name}: {', '.join(theirs)}",
            expected="the same names, in any order",
            remedy="take two models of one task, or correct id2label in config.json",
        )
    if not match.is_identity:
        order = list(match.positions)

        def reordered(_model: Any, _inputs: Any, outputs: Any) -> Any:
            outputs["logits"] = outputs["logits"][:, order]
            return outputs

        student.register_forward_hook(reordered)
