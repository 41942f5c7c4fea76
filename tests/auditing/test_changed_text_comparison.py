"""Response loyalty, flips and Shapley values of predictors that are a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from families import FAMILIES, build, collated
from gradistill.auditing.changed_text_comparison import ChangedTextComparison, TextRows
from gradistill.auditing.per_example import value_of
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.signed_agreement import signed_agreement
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import count_words, words_of
from gradistill.errors import GradistillError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.random_head import head_logits, randomised_head, stacked_heads
from gradistill.models.word_neighbours import nearest_words
from small import WORDS
from wordpiece import tokenizer


@dataclass
class SumOfWords:
    """Logits 0 and the sum of its words' weights; masked words weigh nothing. A random head has random signs."""

    weights: Mapping[str, float]
    has_head: bool = True
    can_mask: bool = True

    def logits(self, copies: Sequence[Copy], *, heads: Sequence[int] = ()) -> np.ndarray:
        sums = np.array([self._sum(copy) for copy in copies])
        drawn = (np.random.default_rng(max(seed, ~seed)).normal() * (-1) ** (seed < 0) for seed in heads)
        signs = [1.0, *drawn]
        return np.stack([np.stack([np.zeros_like(sums), sign * sums], axis=1) for sign in signs])

    def _sum(self, copy: Copy) -> float:
        words = words_of(copy.texts)
        kept = np.ones(len(words), bool) if copy.kept is None else copy.kept
        return sum(self.weights.get(word, 0.0) for word, stays in zip(words, kept, strict=True) if stays)


OPINIONS = {
    "fine": 2.0, "great": 3.0, "awful": -3.0, "dull": -1.5, "film": 0.25, "very": 0.5, "the": -2.0, "and": -2.0,
}  # fmt: skip
TEXTS = [
    ("the film was fine",),
    ("a great film", "and very fine it was"),
    ("awful and dull , very",),
    ("no",),
]
ROWS = TextRows(TEXTS, [4, 7, 1, 0])
POOL = ["thing", "table"]


def _model_comparison(student: Any, teacher: Any = None, **more: Any) -> ChangedTextComparison:
    return ChangedTextComparison(teacher or SumOfWords(OPINIONS), [student], POOL, **more)


def test_a_teacher_agrees_with_itself() -> None:
    comparison = _model_comparison(SumOfWords(OPINIONS))
    (response,), ((flips,), _), (shapley,) = (
        comparison.response(ROWS), comparison.flips(ROWS), comparison.shapley(ROWS, pairs=2)
    )  # fmt: skip
    found = response.columns | flips.columns | shapley.columns
    for name in ("response", "response_masked", "flips", "flips_masked", "kept", "shapley", "shapley_sign"):
        assert value_of(found, name) == pytest.approx(1), name
        assert np.isnan(found[name][3]), "one word"
    assert len(response.floors) == len(flips.floors) == len(shapley.floors) == 16


def test_a_student_with_other_reasons() -> None:
    student = SumOfWords({word: -weight for word, weight in OPINIONS.items()})
    (response,), (shapley,) = (
        _model_comparison(student).response(ROWS),
        _model_comparison(student).shapley(ROWS, pairs=2),
    )
    assert value_of(response.columns, "response") == pytest.approx(-1)
    assert value_of(shapley.columns, "shapley") == pytest.approx(-1)
    assert value_of(shapley.columns, "shapley_sign") == 0
    (flips,), _ = _model_comparison(student).flips(ROWS)
    assert np.isnan(flips.columns["flips"]).all(), "they differ to begin with"


def test_shapley_values_of_a_sum_are_its_terms() -> None:
    comparison = _model_comparison(SumOfWords({"fine": 1.0, "film": 2.0, "the": 0.5}))
    (found,) = comparison.shapley(TextRows([("the film was fine",)], [0]), pairs=1)
    theirs, ours = [-2.0, 0.25, 0, 2.0], [0.5, 2.0, 0, 1.0]
    assert found.columns["shapley"][0] == pytest.approx(stats.spearmanr(ours, theirs)[0])


def test_the_smallest_edit_and_its_counterpart() -> None:
    student = SumOfWords({"fine": 2.0, "very": 2.0})
    rows = TextRows([("very great and fine ,",)], [0])
    teacher = SumOfWords({"fine": 2.0, "great": 3.0, "very": 0.5, ",": -4.0})
    (found,), (flip,) = _model_comparison(student, teacher).flips(rows)
    assert flip.edit.removed.tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]  # 5.5 − 4 = 1.5, and without great −1.5
    assert flip.edit.control_removed.tolist() == [False, False, True, False, False]
    assert (flip.edit.label, flip.edit.new_label, flip.edit.control_label) == (1, 0, 1)
    (segment, start, end, word), (text,) = flip.replaced[0], flip.texts
    assert (segment, start, end) == (0, 5, 10)
    assert word in POOL
    assert text == f"very {word} and fine ,"
    assert flip.students == [1]
    assert found.columns["flips"].tolist() == [0]
    assert found.columns["kept"].tolist() == [1]


def test_neighbours_replace_words_in_flips() -> None:
    alone = TextRows([("it is so fine",)], [0])
    teacher = SumOfWords({"fine": 1.0, "it": -0.5, "nice": -1.0})
    _, (flip,) = _model_comparison(teacher, teacher, neighbours={"fine": "nice"}).flips(alone)
    assert flip.texts == ("it is so nice",)


def test_figures_do_not_depend_on_the_other_rows() -> None:
    student = SumOfWords({"fine": 1.0, "film": 2.0, "dull": -2.0, "very": 1.0})
    every = _model_comparison(student, seed=3)
    for name, of in (("response", every.response), ("shapley", lambda rows: every.shapley(rows, pairs=2))):
        (whole,) = of(ROWS)
        for place in range(4):
            (alone,) = of(TextRows(ROWS.texts[place : place + 1], ROWS.numbers[place : place + 1]))
            assert whole.columns[name][place] == pytest.approx(alone.columns[name][0], nan_ok=True)


def test_without_masks_or_heads() -> None:
    student = SumOfWords(OPINIONS, has_head=False, can_mask=False)
    (response,), ((flips,), _) = (
        _model_comparison(student).response(ROWS),
        _model_comparison(student).flips(ROWS),
    )
    assert not any(name.endswith("_masked") for name in response.columns | flips.columns)
    assert response.floors == []


def test_signed_agreement_is_scipys() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        ours, theirs = generator.normal(size=(2, 11))
        rho, share = signed_agreement(ours, theirs)
        assert rho == pytest.approx(stats.spearmanr(ours, theirs)[0])
        top = sorted(range(11), key=lambda place: -abs(theirs[place]))[:3]
        assert share == pytest.approx(np.mean([np.sign(ours[k]) == np.sign(theirs[k]) for k in top]))
    assert np.isnan(signed_agreement(np.ones(5), np.ones(5))).all()
    assert np.isnan(signed_agreement(np.arange(3.0), np.arange(3.0))).all()
    assert signed_agreement(np.zeros(5), np.arange(5.0)) == (0, 0)


def test_logits_are_those_of_single_texts(small: Any) -> None:
    model, pieces = (
        load_classifier(str(small.teachers["three"]))[0].train(),
        load_tokenizer(str(small.teachers["three"])),
    )
    texts = ("the  film was very dull", "a great one")
    kept = np.array([True, False, True, True, False, True, True, False])
    copies = [Copy(texts), Copy(texts, kept), Copy(("the", "film")), Copy(texts, ~kept)]
    found = ClassifierPredictor(model, pieces).logits(copies, heads=[5])
    assert model.training
    model.eval()
    as_text = [
        texts,
        ("the  [MASK] was very [MASK]", "a great [MASK]"),
        ("the", "film"),
        ("[MASK]  film [MASK] [MASK] dull", "[MASK] [MASK] one"),
    ]  # fmt: skip  (each word is one token)
    for place, (first, second) in enumerate(as_text):
        inputs = pieces(first, second, return_tensors="pt")
        with torch.no_grad():
            own = model(**inputs).logits[0].numpy()
            with randomised_head(model, 5):
                other = model(**inputs).logits[0].numpy()
        assert found[0, place] == pytest.approx(own, abs=1e-5)  # float32, padded against not
        assert found[1, place] == pytest.approx(other, abs=1e-5)
    assert count_words(texts) == len(kept)


def test_masks_need_offsets(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = tokenizer(WORDS)
    monkeypatch.setattr(type(pieces), "is_fast", False)
    predictor = ClassifierPredictor(load_classifier(str(small.teachers["two"]))[0], pieces)
    assert not predictor.can_mask
    with pytest.raises(GradistillError, match="no character offsets"):
        predictor.logits([Copy(("the film",), np.array([True, False]))])


@pytest.mark.parametrize("family", FAMILIES)
def test_all_heads_in_one_run(family: str) -> None:
    model = build(family).double()
    inputs = {name: value for name, value in collated().items() if name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = head_logits(model, inputs, stacked_heads(model, [1, 2]))
        expected = [model(**inputs).logits]
        for seed in (1, 2):
            with randomised_head(model, seed):
                expected.append(model(**inputs).logits)
    assert torch.allclose(found, torch.stack(expected), atol=1e-12, rtol=0)


def test_nearest_words_against_a_loop(small: Any) -> None:
    model, pieces = load_classifier(str(small.teachers["two"]))[0], tokenizer(WORDS)
    known = ["fine", "great", "awful", "film", "Film.", "the"]
    table = model.get_input_embeddings().weight.detach()
    found = nearest_words(model, pieces, ["film", "fine"], known)
    for word in ("film", "fine"):
        own = table[pieces.convert_tokens_to_ids(word)]
        others = [other for other in known if other.lower().strip(".") != word]
        rows = table[pieces.convert_tokens_to_ids(others)]
        similar = torch.cosine_similarity(own[None], rows).numpy()
        assert found[word] == others[int(np.argmax(similar))]
    assert nearest_words(model, pieces, ["film"], ["FILM"]) == {"film": "film"}


def test_an_edit_turns_the_teacher_clearly() -> None:
    """At the boundary a rounding turns a model back, so an edit goes on until the new label is well ahead."""
    rows = TextRows([("fine and great , lovely a",)], [0])
    teacher = SumOfWords({"fine": 2.0, "great": 1.5, ",": -0.5, "lovely": 1.0, "a": -1.9})
    _, (flip,) = _model_comparison(teacher, teacher).flips(rows)
    assert flip.edit.removed.tolist() == [True, False, True, False, False, False]  # 2.1, 0.1, −1.4
    assert not _model_comparison(teacher, SumOfWords({"fine": 0.6, "and": -0.1})).flips(rows)[1]


def test_a_teacher_that_turns_at_every_change_agrees_with_itself() -> None:
    """Few words, and every one of them important: the counterpart has none in common with the edit, and where the
    teacher turns under it too nothing is asked of the student."""
    draw = np.random.default_rng(0)
    words = [f"w{k}" for k in range(12)]
    teacher = SumOfWords({word: float(draw.normal(scale=4)) for word in words})
    texts = [(" ".join(draw.choice(words, draw.integers(4, 7))),) for _ in range(60)]
    (found,), flips = _model_comparison(teacher, teacher).flips(TextRows(texts, list(range(60))))
    edits = [flip.edit for flip in flips]
    assert len(edits) > 20
    assert not any((edit.removed & edit.control_removed).any() for edit in edits)
    assert {int(edit.removed.sum()) - int(edit.control_removed.sum()) for edit in edits} == {0}
    assert any(edit.control_label != edit.label for edit in edits)
    assert np.isnan(found.columns["kept"]).sum() > np.isnan(found.columns["flips"]).sum()
    for name in ("flips", "kept"):
        assert np.nanmin(found.columns[name]) == 1, name


def test_words_that_no_tokenizer_knows_change_nothing() -> None:
    """What is left is the rounding of batches, which correlates by chance."""
    reader = tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    models = [build("bert", seed=seed, initializer_range=0.3, hidden_size=64) for seed in (0, 1)]
    teacher, student = (ClassifierPredictor(model, reader) for model in models)
    draw = np.random.default_rng(0)
    unknown = ["кот", "дом", "лес", "мир"]
    texts = [(" ".join(draw.choice(unknown, draw.integers(5, 40))),) for _ in range(60)]
    comparison = ChangedTextComparison(teacher, [student], unknown)
    (found,) = comparison.response(TextRows(texts, list(range(60))), masked=False)
    assert np.isnan(found.columns["response"]).all()
