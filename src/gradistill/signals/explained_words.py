"""Words that are explained in token classification: how they are drawn, and a forward pass for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from gradistill.attribution.word_targets import WordTarget
from gradistill.batch import Batch
from gradistill.signals.forward_pass import ForwardPass, Needs, label_ids_of
from gradistill.signals.word_replacement import row_generator


def passes_of_words(forward: ForwardPass, target: WordTarget) -> Sequence[ForwardPass]:
    """One view of ``forward`` for each word that ``target`` explains, with that word's logits as the text's logits.

    The model does not run again. In a text with fewer words, the surplus ones explain position 0;
    ``Batch.over_explained`` leaves them out.
    """
    key = (WordTarget, target.words, target.every_set)
    if key not in forward.memo:
        batch = forward.batch
        labels = forward.logits.detach().argmax(-1) if batch.teacher_labels is None else batch.teacher_labels
        places = drawn_places(batch, labels, target.words, target.sets(batch.drawn))
        alike = [
            one
            for one in forward.needs.targets
            if isinstance(one, WordTarget) and (one.words, one.every_set) == (target.words, target.every_set)
        ]
        forward.memo[key] = [_of_word(forward, alike, place) for place in places.unbind(1)]
    return forward.memo[key]


def _of_word(
    forward: ForwardPass, targets: Sequence[WordTarget], place: Int[Tensor, " batch"]
) -> ForwardPass:
    batch, recorded = forward.batch, forward.recorded.at(place)
    rows = torch.arange(len(place), device=place.device)
    batch = replace(
        batch,
        labels=None if batch.labels is None else batch.labels[rows, place],
        teacher_labels=None if batch.teacher_labels is None else batch.teacher_labels[rows, place],
        token_labels=False,
    )
    plain = tuple(dict.fromkeys(target.plain for target in targets))
    return replace(
        forward,
        batch=batch,
        recorded=recorded,
        needs=Needs(targets=plain),
        label_ids=label_ids_of(plain, recorded.logits, batch),
        place=place,
    )


def drawn_places(
    batch: Batch, labels: Int[Tensor, "batch token"], words: int, sets: Sequence[int]
) -> Int[Tensor, "batch place"]:
    """The positions of the first tokens of the explained words: ``words`` in each set, the sets concatenated.

    ``labels`` are the teacher's. In each set, the labels that the teacher predicts in the text take turns in a random
    order: most words are in no span, and a uniform draw would miss the spans. Draws depend on the set, the text's
    tokens and its labels, not on other rows, nor on padding. In a text with fewer words the remaining positions are 0.
    """
    ids, first = batch.inputs["input_ids"].cpu().numpy(), batch.first_tokens.cpu().numpy()
    mask, given = batch.mask.cpu().numpy(), labels.cpu().numpy()
    places = np.zeros((len(ids), len(sets), words), dtype=np.int64)
    for row, starts in enumerate(first):
        positions = np.flatnonzero(starts)
        for column, number in enumerate(sets):
            generator = row_generator(0, number, ids[row][mask[row]])
            drawn = _by_turns(positions, given[row][positions], generator)[:words]
            places[row, column, : len(drawn)] = drawn
    return torch.from_numpy(places).flatten(1).to(batch.mask.device)


def _by_turns(
    places: Int[np.ndarray, " word"], labels: Int[np.ndarray, " word"], generator: np.random.Generator
) -> Int[np.ndarray, " word"]:
    """``places`` in a random order in which the labels take turns."""
    order = generator.permutation(len(places))
    places, labels = places[order], labels[order]
    kinds, kind = np.unique(labels, return_inverse=True)
    turn = np.array([(kind[:k] == kind[k]).sum() for k in range(len(kind))], dtype=np.int64)
    return places[np.lexsort((generator.permutation(len(kinds))[kind], turn))]
