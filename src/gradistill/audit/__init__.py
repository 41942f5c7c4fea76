"""Teacher and student compared on data that neither was fitted to."""

from gradistill.audit.compare import Answers, compare, loyalty
from gradistill.audit.loyalty import (
    Loyalty,
    label_agreement,
    measure_loyalty,
    probability_agreement,
    saliency_agreement,
)
from gradistill.audit.statistics import Estimate, bootstrap_mean, bootstrap_statistic

__all__ = [
    "Answers",
    "Estimate",
    "Loyalty",
    "bootstrap_mean",
    "bootstrap_statistic",
    "compare",
    "label_agreement",
    "loyalty",
    "measure_loyalty",
    "probability_agreement",
    "saliency_agreement",
]
