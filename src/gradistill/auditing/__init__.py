"""Audits: comparisons of teacher and student on data that neither was trained on."""

from gradistill.auditing.loyalty_measures import (
    Loyalty,
    label_agreement,
    loyalty,
    probability_agreement,
    saliency_agreement,
)
from gradistill.auditing.predictions import Predictions, predict_logits, predict_rows
from gradistill.auditing.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_statistic,
    mean_estimate,
    wilson_share,
)

__all__ = [
    "Estimate",
    "Loyalty",
    "Predictions",
    "bootstrap_mean",
    "bootstrap_statistic",
    "label_agreement",
    "loyalty",
    "mean_estimate",
    "predict_logits",
    "predict_rows",
    "probability_agreement",
    "saliency_agreement",
    "wilson_share",
]
