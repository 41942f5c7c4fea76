"""Whether two models read the same tokens."""

from __future__ import annotations

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from gradistill.errors import ModelError

_SPECIMENS = (
    "The Quick brown fox, 42 of them; isn't it?",
    "Übergröße naïve café — “quotes” 1,234.50 €",
    "camelCase snake_case http://a.b/c?d=e 日本語 🙂",
)


def check_same_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Raise ModelError, with the difference, unless both give every text the same token ids.

    Compared are the vocabularies, the special tokens, and the ids of a few specimens (which find a difference in
    case or normalisation behind equal vocabularies).
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
        raise ModelError(
            "student and teacher read different tokens:\n" + "\n".join(f"  - {d}" for d in differences),
            expected="one tokenizer for both: attributions are compared token by token",
            remedy="build the student from the teacher (--student-layers), or take a checkpoint of the same family",
        )


def _vocabulary_differences(student: dict[str, int], teacher: dict[str, int]) -> list[str]:
    found = []
    for mine, others, owner in ((student, teacher, "student"), (teacher, student, "teacher")):
        only = sorted(mine.keys() - others.keys())
        if only:
            found.append(f"{len(only)} tokens only the {owner} knows, such as {only[:3]}")
    moved = [token for token, k in student.items() if token in teacher and teacher[token] != k]
    if moved:
        token = moved[0]
        found.append(
            f"{len(moved)} tokens with other ids, such as {token!r}: {student[token]} (student) and "
            f"{teacher[token]} (teacher)"
        )
    return found


def _special_differences(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[str]:
    roles = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token", "bos_token", "eos_token")
    return [
        f"{role}: {getattr(student, role, None)!r} (student) and {getattr(teacher, role, None)!r} (teacher)"
        for role in roles
        if getattr(student, role, None) != getattr(teacher, role, None)
    ]
