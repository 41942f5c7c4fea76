"""Checks that two tokenizers give the same tokens."""

from __future__ import annotations

from datasets import Dataset
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from gradistill.data.collator import padding_side
from gradistill.data.tasks import Task
from gradistill.data.tokenization import encode
from gradistill.errors import ModelError

_COMPARED = 1000
"""The most rows of the data on which two tokenizers are compared, evenly spread over all."""

_SHOWN = 8
"""Number of tokens of a row that a message shows, starting shortly before the first difference."""

_SPECIMENS = (
    "The Quick brown fox, 42 of them; isn't it?",
    "Übergröße naïve café — “quotes” 1,234.50 €",
    "camelCase snake_case http://a.b/c?d=e 日本語 🙂",
)


def check_same_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Raise ModelError, with the difference, unless both give every text the same token ids.

    It compares the vocabularies, the special tokens, the sides on which they truncate and on which batches are padded,
    and the ids of a few specimens (which show a difference in case or normalisation despite equal vocabularies).
    ``check_same_rows`` compares the rows of the data.
    """
    differences = [
        *_vocabulary_differences(student.get_vocab(), teacher.get_vocab()),
        *_special_differences(student, teacher),
    ]
    if not differences:
        differences = [
            f"{text!r} becomes {student.tokenize(text)[:8]}… and {teacher.tokenize(text)[:8]}…"
            for text in _SPECIMENS
            if student(text)["input_ids"] != teacher(text)["input_ids"]
        ]
    if differences:
        raise _other_tokens("\n".join(f"  - {d}" for d in differences))


def check_same_rows(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    rows: Dataset,
    task: Task,
    *,
    max_length: int,
) -> None:
    """Raise ModelError unless both encode the rows of a prepared split alike, cut at ``max_length``.

    At most ``_COMPARED`` rows are encoded, evenly spread; the message shows the first that differs as tokens.
    """
    sample = rows.select(range(0, len(rows), -(-len(rows) // _COMPARED))) if len(rows) else rows
    if not len(sample):
        return
    ours, theirs = (
        encode(sample, tokenizer, task, max_length=max_length).dataset for tokenizer in (student, teacher)
    )
    for name in ("input_ids", "token_type_ids", "special_tokens_mask"):
        if (name in ours.column_names) != (name in theirs.column_names):
            raise _other_tokens(f"  - {name}: made by only one of the tokenizers")
        if name not in ours.column_names:
            continue
        pairs = zip(ours[name][:], theirs[name][:], strict=True)
        place = next((k for k, (own, other) in enumerate(pairs) if own != other), None)
        if place is not None:
            shown = [
                _around(tokenizer, encoded[place], name, other[place][name])
                for tokenizer, encoded, other in ((student, ours, theirs), (teacher, theirs, ours))
            ]
            raise _other_tokens(
                f"  - {name} of row {ours[place]['index']}:\n    student: {shown[0]}\n    teacher: {shown[1]}"
            )


def _around(
    tokenizer: PreTrainedTokenizerBase, row: dict[str, list[int]], name: str, other: list[int]
) -> str:
    """The tokens of a row around its first difference to ``other``, with their values if the column is not the ids."""
    pairs = list(zip(row[name], other, strict=False))
    first = next((k for k, (a, b) in enumerate(pairs) if a != b), len(pairs))
    start = max(0, first - 2)
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"][start : start + _SHOWN])
    values = row[name][start : start + _SHOWN]
    shown = tokens if name == "input_ids" else [f"{t}={v}" for t, v in zip(tokens, values, strict=True)]
    return f"{'… ' if start else ''}{' '.join(map(ascii, shown))} (from token {start} of {len(row['input_ids'])})"


def _other_tokens(differences: str) -> ModelError:
    return ModelError(
        f"student and teacher read different tokens:\n{differences}",
        expected="one tokenizer for both: attributions are compared token by token",
        remedy="build the student from the teacher (--student-layers), or take a checkpoint of the same family",
    )


def _vocabulary_differences(student: dict[str, int], teacher: dict[str, int]) -> list[str]:
    differences = []
    for mine, others, owner in ((student, teacher, "student"), (teacher, student, "teacher")):
        only = sorted(mine.keys() - others.keys())
        if only:
            differences.append(f"{len(only)} tokens that only the {owner} has, such as {only[:3]}")
    moved = [token for token, k in student.items() if token in teacher and teacher[token] != k]
    if moved:
        token = moved[0]
        differences.append(
            f"{len(moved)} tokens with other ids, such as {token!r}: {student[token]} (student) and "
            f"{teacher[token]} (teacher)"
        )
    return differences


def _special_differences(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[str]:
    roles = (
        "cls_token", "sep_token", "pad_token", "unk_token", "mask_token", "bos_token", "eos_token",
        "truncation_side",
    )  # fmt: skip
    compared = [(role, getattr(student, role, None), getattr(teacher, role, None)) for role in roles]
    compared.append(("side of padding", padding_side(student), padding_side(teacher)))
    return [
        f"{what}: {own!r} (student) and {other!r} (teacher)" for what, own, other in compared if own != other
    ]
