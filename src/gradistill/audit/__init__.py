"""Teacher and student compared on data that neither was fitted to."""

from gradistill.audit.answers import Answers, ask, predicted_logits
from gradistill.audit.loyalty import (
    Loyalty,
    label_agreement,
    loyalty,
    probability_agreement,
    saliency_agreement,
)
from gradistill.audit.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_statistic,
    mean_estimate,
    wilson_share,
)
from gradistill.rooms import called

__all__ = [
    "Answers",
    "Estimate",
    "Loyalty",
    "ask",
    "bootstrap_mean",
    "bootstrap_statistic",
    "label_agreement",
    "loyalty",
    "mean_estimate",
    "predicted_logits",
    "probability_agreement",
    "saliency_agreement",
    "wilson_share",
]

called(__name__, "gradistill.jobs.audit:audit")
