"""A classifier for each label of rows that may have several, as one predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gradistill.auditing.several_predictors import SeveralPredictors
from gradistill.data.label_matching import spelled_alike
from gradistill.errors import DataError

_YES = ("1", "LABEL_1", "yes", "true", "positive")
"""Names of an output that stands for "has the label", where it is not called like the label itself."""


@dataclass(frozen=True, eq=False)
class LabelPredictor(SeveralPredictors):
    """Classifiers of two classes, one a label: whether a row has it. Each has its outputs in the order no, yes.

    A label's logit is the difference of the two, its log-odds. The labels are decided one by one (binary relevance:
    Zhang and Zhou 2014, doi 10.1109/TKDE.2013.39).

    Example: ``LabelPredictor((is_joy, is_anger)).logits([Copy(("a fine film",))])[0]``
    """

    multi_label = True
    title = "one model a label"

    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """See ``SeveralPredictors``."""
        return np.stack([pair[:, 1] - pair[:, 0] for pair in logits], axis=-1)


def no_and_yes(label: str, names: Sequence[str] | None, owner: str) -> tuple[str, str]:
    """The outputs of a label's classifier: without the label, with it. The second is called like the label, or yes,
    true, positive, 1, LABEL_1.

    Raises DataError for anything but two outputs of which one is that.

    Example: ``no_and_yes("joy", ("joy", "other"), "teacher of joy")`` is ``("other", "joy")``
    """
    names = tuple(names or ())
    for wanted in ((label,), _YES):
        found = [name for name in names if any(spelled_alike(name, one) for one in wanted)]
        if len(names) == 2 and len(found) == 1:
            return next(name for name in names if name != found[0]), found[0]
    raise DataError(
        f"The {owner} predicts {', '.join(names) or 'a score'}, and the label {label!r} of a row is wanted.",
        expected=f"two classes, of which one is called {label}, yes, true, positive or 1",
        remedy="take a classifier of that label alone, or correct id2label in config.json",
    )
