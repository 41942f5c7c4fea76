"""One binary classifier for each of several labels a row, combined into one predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gradistill.auditing.several_predictors import SeveralPredictors
from gradistill.data.label_matching import spelled_alike
from gradistill.errors import DataError

_YES = ("1", "LABEL_1", "yes", "true", "positive")
"""Names of the output "has the label", if it does not have the label's own name."""


@dataclass(frozen=True, eq=False)
class LabelPredictor(SeveralPredictors):
    """Binary classifiers, one for each label: whether a row has it. Each has its outputs in the order no, yes.

    A label's logit is the difference of the two outputs, its log-odds. Labels are predicted independently (binary
    relevance: Zhang and Zhou 2014, doi 10.1109/TKDE.2013.39).

    Example: ``LabelPredictor((is_joy, is_anger)).logits([Copy(("a fine film",))])[0]``
    """

    multi_label = True
    title = "one model for each label"

    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """The log-odds of all labels (see ``SeveralPredictors``)."""
        return np.stack([pair[:, 1] - pair[:, 0] for pair in logits], axis=-1)


def no_and_yes(label: str, names: Sequence[str] | None, owner: str) -> tuple[str, str]:
    """The output names of a label's classifier: without the label, with the label. The second one is the label's name,
    or yes, true, positive, 1, LABEL_1.

    Raises DataError unless there are two outputs of which exactly one has such a name.

    Example: ``no_and_yes("joy", ("joy", "other"), "teacher of joy")`` is ``("other", "joy")``
    """
    names = tuple(names or ())
    for accepted in ((label,), _YES):
        matches = [name for name in names if any(spelled_alike(name, one) for one in accepted)]
        if len(names) == 2 and len(matches) == 1:
            return next(name for name in names if name != matches[0]), matches[0]
    raise DataError(
        f"The {owner} predicts {', '.join(names) or 'a score'}, and the label {label!r} of a row is needed.",
        expected=f"two classes, of which one is called {label}, yes, true, positive or 1",
        remedy="take a binary classifier of that label, or correct id2label in config.json",
    )
