"""Response loyalty: how far a student reacts to a change of the text as its teacher does.

Words of a text are taken away at random, and both models predict what is left. A set of words that stay is a coalition
``S``. ``Δ(S) = F(x_S) − F(x)`` is its effect, ``F`` the log-odds of the label that the teacher predicts for the whole
text (the prediction in a regression). The figure of a text is Pearson's r of the teacher's and the student's effects
over K coalitions. It needs forward passes only, and words of the raw text, so any two predictors can be compared. The
definition is ours; word removal as a probe of a model goes back to Ribeiro et al. 2016 (LIME, arXiv 1602.04938).

Each step is a function: ``draw_coalitions``, ``masked_copies`` or ``substituted_copies``, ``copy_logits``,
``measure_response``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from gradistill.auditing.predictions import predict_logits
from gradistill.auditing.statistics import Estimate, bootstrap_statistic, mean_estimate
from gradistill.data.batching import Collate
from gradistill.data.tokenization import tokenized
from gradistill.errors import GradistillError

COARSE = (0.1, 0.9)
"""Range of the share of words that stay: half of them on average."""

FINE = (0.5, 0.95)
"""Range of the share of words that stay where 5 to 50 % are taken away."""

COPIES = 16
"""Coalitions a text."""

MIN_WORDS = 4
"""Shorter texts are skipped: three words have eight coalitions."""

_WORD = re.compile(r"\S+")

Texts = Sequence[str]
"""The text of one row, or its pair of texts."""
Kept = Bool[np.ndarray, "_ _"]
"""``(copy, word)``: for each copy of one row the words that stay; those of a pair are counted through."""
EncodedRow = Mapping[str, Any]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word: a run of characters that are no white space."""
    return [match.span() for match in _WORD.finditer(text)]


def count_words(texts: Texts) -> int:
    """The number of words of a row, of both texts of a pair."""
    return sum(len(word_spans(text)) for text in texts)


def draw_coalitions(
    words: Sequence[int],
    *,
    copies: int = COPIES,
    keep: tuple[float, float] = COARSE,
    seed: int = 0,
    rows: Sequence[int] | None = None,
) -> list[Kept]:
    """Coalitions of every row: each copy draws a rate from ``keep``, and each word stays with that rate.

    They depend on ``seed``, the row's number (its place unless ``rows`` names it) and its count of ``words``, so
    they are the same for all models, and for a row whatever other rows there are. A copy that would keep every word
    loses one at random: an unchanged text has no effect.

    Example::

        kept = draw_coalitions([count_words(row) for row in texts], keep=FINE)
    """
    numbers = range(len(words)) if rows is None else rows
    return [
        _draw(count, copies, keep, np.random.default_rng([seed, number]))
        for count, number in zip(words, numbers, strict=True)
    ]


def _draw(words: int, copies: int, keep: tuple[float, float], generator: np.random.Generator) -> Kept:
    rates = generator.uniform(*keep, size=(copies, 1))
    kept = generator.random((copies, words)) < rates
    lost = generator.integers(max(words, 1), size=copies)
    whole = np.flatnonzero(kept.all(axis=1)) if words else np.empty(0, dtype=np.int64)
    kept[whole, lost[whole]] = False
    return kept


def token_words(
    texts: Texts, offsets: Sequence[tuple[int, int]], segments: Sequence[int | None]
) -> Int[np.ndarray, " token"]:
    """The number of each token's word; −1 for special tokens and for tokens of white space.

    ``offsets`` are start and end of each token in the text of its segment. A token that spans several words counts
    to the first that it touches.
    """
    spans = [word_spans(text) for text in texts]
    first = np.cumsum([0, *map(len, spans)])
    starts = [np.array([start for start, _ in of_text], dtype=np.int64) for of_text in spans]
    ends = [np.array([end for _, end in of_text], dtype=np.int64) for of_text in spans]
    words = np.full(len(offsets), -1, dtype=np.int64)
    for token, ((start, end), segment) in enumerate(zip(offsets, segments, strict=True)):
        if segment is None or start == end:
            continue
        word = int(np.searchsorted(ends[segment], start, side="right"))
        if word < len(ends[segment]) and starts[segment][word] < end:
            words[token] = first[segment] + word
    return words


def mask_tokens(
    token_ids: Int[np.ndarray, " token"], words: Int[np.ndarray, " token"], kept: Kept, mask_token_id: int
) -> Int[np.ndarray, "copy token"]:
    """Token ids of every copy: all tokens of a word that does not stay are the mask token."""
    gone = (words >= 0) & ~kept[:, np.maximum(words, 0)] if kept.shape[1] else np.zeros((len(kept), 1), bool)
    return np.where(gone, mask_token_id, token_ids)


def masked_copies(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Texts],
    kept: Sequence[Kept],
    *,
    max_length: int = 128,
) -> list[list[EncodedRow]]:
    """Each row encoded as it is, and behind it its copies with words masked.

    The blank (mask token, or else the padding token) replaces token ids; nothing is decoded. Raises GradistillError
    for a tokenizer without character offsets.
    """
    tokens: Any = tokenizer
    blank = tokens.pad_token_id if tokens.mask_token_id is None else tokens.mask_token_id
    if not tokenizer.is_fast or blank is None:
        raise GradistillError(
            f"{type(tokenizer).__name__} has no character offsets, or neither mask nor padding token.",
            expected="a fast tokenizer with a mask token",
            remedy="use substituted_copies",
        )
    encoded = _encoded(tokenizer, rows, max_length)
    found: list[list[EncodedRow]] = []
    for place, (row, of_row) in enumerate(zip(rows, kept, strict=True)):
        columns = {name: values[place] for name, values in encoded.items() if name != "offset_mapping"}
        words = token_words(row, encoded["offset_mapping"][place], encoded.sequence_ids(place))
        copies = mask_tokens(np.asarray(columns["input_ids"]), words, of_row, blank)
        found.append([columns, *({**columns, "input_ids": ids} for ids in copies.tolist())])
    return found


def word_pool(rows: Iterable[Texts]) -> list[str]:
    """All words of the data, as often as they occur: the words that ``substituted_copies`` draws from."""
    return [text[start:end] for row in rows for text in row for start, end in word_spans(text)]


def substitute_words(texts: Texts, kept: Kept, others: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The texts of every copy of a row, with ``others[copy][word]`` in the place of each word that does not stay."""
    spans = [word_spans(text) for text in texts]
    copies = []
    for of_copy, words in zip(kept, others, strict=True):
        number, changed = 0, []
        for text, of_text in zip(texts, spans, strict=True):
            pieces, done = [], 0
            for start, end in of_text:
                pieces += [text[done:start], text[start:end] if of_copy[number] else words[number]]
                done, number = end, number + 1
            changed.append("".join([*pieces, text[done:]]))
        copies.append(tuple(changed))
    return copies


@dataclass(frozen=True)
class Draw:
    """What chance depends on: a ``seed``, and the ``rows``' numbers (their places unless they are given)."""

    seed: int = 0
    rows: Sequence[int] | None = None

    def of(self, count: int) -> Sequence[int]:
        """The numbers of so many rows."""
        return range(count) if self.rows is None else self.rows


def substituted_copies(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Texts],
    kept: Sequence[Kept],
    pool: Sequence[str],
    *,
    draw: Draw = Draw(),
    max_length: int = 128,
) -> list[list[EncodedRow]]:
    """Each row encoded as it is, and behind it its copies with words of ``pool`` in the place of those that go.

    ``draw`` decides which words, so all models see the same texts. A student that was trained on masks has no
    advantage here.
    """
    texts: list[Texts] = []
    for number, row, of_row in zip(draw.of(len(rows)), rows, kept, strict=True):
        generator = np.random.default_rng([draw.seed, number, 1])  # another stream than the coalitions
        drawn = generator.integers(len(pool), size=of_row.shape).tolist()
        others: list[list[str]] = [[pool[int(k)] for k in of_copy] for of_copy in drawn]
        texts += [row, *substitute_words(row, of_row, others)]
    encoded = _encoded(tokenizer, texts, max_length)
    names = [name for name in encoded if name != "offset_mapping"]
    flat: list[EncodedRow] = [{name: encoded[name][place] for name in names} for place in range(len(texts))]
    each = 1 + len(kept[0]) if len(kept) else 1
    return [flat[start : start + each] for start in range(0, len(flat), each)]


def _encoded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Texts], max_length: int) -> BatchEncoding:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]]
    encoded = tokenized(tokenizer, columns, max_length, offsets=bool(tokenizer.is_fast))
    del encoded["special_tokens_mask"]
    return encoded


def copy_logits(
    model: nn.Module,
    copies: Sequence[Sequence[EncodedRow]],
    collate: Collate,
    *,
    tokens_at_once: int = 8192,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Float[np.ndarray, "row text label"]:
    """The model's logits for every row and its copies, as ``predict_logits`` makes them."""
    flat = [row for of_row in copies for row in of_row]
    found = predict_logits(model, flat, collate, tokens_at_once=tokens_at_once, on_progress=on_progress)
    logits = found.astype(np.float64)
    return logits.reshape(len(copies), -1, logits.shape[-1])


def log_odds(
    logits: Float[np.ndarray, "row text label"], label_ids: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row text"]:
    """``z_c − logsumexp_{k≠c} z_k`` of one label a row; the prediction itself in a regression."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    own = label_ids[:, None, None] == np.arange(logits.shape[-1])
    chosen = np.take_along_axis(logits, label_ids[:, None, None], axis=-1)[..., 0]
    return chosen - logsumexp(np.where(own, -np.inf, logits), axis=-1)


def effects(
    logits: Float[np.ndarray, "row text label"], label_ids: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row copy"]:
    """``Δ(S) = F(x_S) − F(x)`` of every copy; the first entry of ``logits`` is the whole text."""
    values = log_odds(logits, label_ids)
    return values[:, 1:] - values[:, :1]


def response_agreement(
    student: Float[np.ndarray, "row copy"], teacher: Float[np.ndarray, "row copy"]
) -> Float[np.ndarray, " row"]:
    """Pearson's r of two models' effects, per text.

    0 where the student's effects are all equal: it confirms none of the teacher's. NaN where the teacher's are: there
    is nothing to agree with.
    """
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (student, teacher))
    spread_a, spread_b = (a * a).sum(axis=1), (b * b).sum(axis=1)
    flat_a, flat_b = (np.ptp(values, axis=1) == 0 for values in (student, teacher))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip((a * b).sum(axis=1) / np.sqrt(spread_a * spread_b), -1.0, 1.0)
    return np.where(flat_b, np.nan, np.where(flat_a, 0.0, r))


def text_agreement(
    student_logits: Float[np.ndarray, "row text label"],
    teacher_logits: Float[np.ndarray, "row text label"],
    words: Sequence[int],
) -> Float[np.ndarray, " row"]:
    """``response_agreement`` of two models' logits; NaN for texts with fewer than ``MIN_WORDS`` words too."""
    label_ids = teacher_logits[:, 0].argmax(axis=-1)
    found = response_agreement(effects(student_logits, label_ids), effects(teacher_logits, label_ids))
    return np.where(np.asarray(words) >= MIN_WORDS, found, np.nan)


@dataclass(frozen=True)
class Response:
    """The figures of one student against its teacher.

    ``agreement`` is the response loyalty: the mean of ``response_agreement``. ``slope`` is that of the line through
    the origin that gives the student's effects from the teacher's, over all texts: 1 where both react with the same
    strength. ``labels`` is the share of copies for which both predict the same label (NaN in a regression). ``short``
    texts have fewer than ``MIN_WORDS`` words; in ``unmoved`` ones the teacher reacts to no change. Neither counts.
    """

    agreement: Estimate
    slope: Estimate
    labels: Estimate
    short: int
    unmoved: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        figures = {name: getattr(self, name).as_dict() for name in ("agreement", "slope", "labels")}
        return {**figures, "short": self.short, "unmoved": self.unmoved}


def measure_response(
    student_logits: Float[np.ndarray, "row text label"],
    teacher_logits: Float[np.ndarray, "_ _ _"],
    words: Sequence[int],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Response:
    """All figures with 95 % bootstrap intervals over texts.

    The first copy of each row is the whole text. ``words`` are the counts of words. Raises GradistillError for
    logits of different shapes.
    """
    if student_logits.shape != teacher_logits.shape or len(words) != len(teacher_logits):
        raise GradistillError(
            f"The student's logits have shape {student_logits.shape}, the teacher's {teacher_logits.shape}, "
            f"and there are {len(words)} counts of words.",
            expected="one row of copies per text, the same for both",
        )
    label_ids = teacher_logits[:, 0].argmax(axis=-1)
    agreement, long = text_agreement(student_logits, teacher_logits, words), np.asarray(words) >= MIN_WORDS
    moved = np.isfinite(agreement)
    ours, theirs = effects(student_logits, label_ids)[moved], effects(teacher_logits, label_ids)[moved]
    same = (student_logits[moved].argmax(-1) == teacher_logits[moved].argmax(-1))[:, 1:].mean(axis=1)
    nan = float("nan")
    regression = teacher_logits.shape[-1] == 1
    return Response(
        mean_estimate(agreement[moved], bounds=(-1.0, 1.0), resamples=resamples, seed=seed),
        bootstrap_statistic(
            _ratio, (ours * theirs).sum(axis=1), (theirs**2).sum(axis=1), resamples=resamples, seed=seed
        ),
        Estimate(nan, nan, nan, 0)
        if regression
        else mean_estimate(same, bounds=(0.0, 1.0), resamples=resamples, seed=seed),
        short=int((~long).sum()),
        unmoved=int((long & ~moved).sum()),
    )


def _ratio(
    above: Float[np.ndarray, "resample row"], below: Float[np.ndarray, "resample row"]
) -> Float[np.ndarray, " resample"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above.sum(axis=-1) / below.sum(axis=-1)
