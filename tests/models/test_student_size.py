"""A student on a budget: sizes as on disk, and the first that fits of all that there are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from families import FAMILIES, build
from gradistill.errors import RecipeError
from gradistill.models.factorized_embedding import factorize_embeddings
from gradistill.models.student import narrow_student, student_from_teacher
from gradistill.models.student_size import Budget, SizeSearch, StudentShape, file_bytes, parameters_of

CUT = [name for name in FAMILIES if name != "funnel"]  # whose depth cannot be set


def learnt(model: object) -> int:
    return sum(p.numel() for p in model.parameters())  # pyright: ignore


@pytest.mark.parametrize("family", CUT)
def test_bytes_are_those_of_the_file(family: str, tmp_path: Path) -> None:
    student = student_from_teacher(build(family), 2)
    student.save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    given = SizeSearch(build(family), StudentShape(layers=2), ranks=False, widths=False)
    assert given.fitted(Budget(size, parameters=False)) == (StudentShape(2), size)
    assert file_bytes(student) == size
    with pytest.raises(RecipeError, match=f"at least {size:,} bytes"):
        given.fitted(Budget(size - 1, parameters=False))


@cache
def by_hand() -> list[tuple[StudentShape, int]]:
    """All students in their order, each of them built."""
    found = []
    for layers in (3, 2, 1):
        for rank in (None, *range(15, 3, -1)):
            model = student_from_teacher(build("bert"), layers)
            if rank:
                factorize_embeddings(model, rank)
            found.append((StudentShape(layers, None, rank), learnt(model)))
    return [*found, (StudentShape(1, 8), learnt(narrow_student(build("bert"), 1, 8)))]


@pytest.mark.parametrize("size", [10**6, 9200, 8900, 7700, 6800, 5300, 4400, 2200])
def test_the_first_student_that_fits_is_found(size: int) -> None:
    fitting = SizeSearch(build("bert"), StudentShape(), usual=1)
    found, counted = fitting.fitted(Budget(size, parameters=True))
    assert (found, counted) == next(one for one in by_hand() if one[1] <= size)
    settled = SizeSearch(build("bert"), found, usual=1)
    assert settled.fitted(Budget(size, parameters=True)) == (found, counted), (
        "a recorded recipe finds it again"
    )


def test_what_is_given_is_kept_and_the_smallest_is_named() -> None:
    bert = build("bert")
    whole, most = parameters_of(bert), Budget(parameters_of(bert, 5), parameters=True)
    assert SizeSearch(bert, StudentShape(layers=3)).fitted(most)[0] == StudentShape(3, None, 5)
    assert SizeSearch(bert, StudentShape(), ranks=False).fitted(most)[0].layers == 2
    assert SizeSearch(bert, StudentShape(width=8)).fitted(Budget(whole, parameters=True))[0] == StudentShape(
        1, 8
    )
    with pytest.raises(RecipeError, match=r"at least .*: 3 layers of the teacher, embeddings of rank 4"):
        SizeSearch(bert, StudentShape(layers=3), widths=False).fitted(Budget(100, parameters=True))


@pytest.mark.parametrize(
    ("given", "most", "parameters"),
    [("60MB", 60_000_000, False), (" 1.5 gib", 1_610_612_736, False), ("9.5M", 9_500_000, True),
     (".5m parameters", 500_000, True), ("700k", 700_000, True)],
)  # fmt: skip
def test_sizes(given: str, most: int, parameters: bool) -> None:
    assert Budget.of(given) == Budget(most, parameters)


@pytest.mark.parametrize(
    "given", ["", "10", "MB", "-3MB", "3 MB parameters", "10 TB", "0M", "1e6k", "5M 5M", "nanMB"]
)
def test_what_is_no_size(given: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        Budget.of(given)
