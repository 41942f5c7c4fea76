"""Titles of an audit's figures, as reports show them."""

from __future__ import annotations

TITLES = {
    "label": "label loyalty",
    "kappa": "label agreement beyond chance (κ)",
    "probability": "probability loyalty",
    "span": "span loyalty (F1)",
    "prediction": "prediction loyalty",
    "saliency": "saliency loyalty",
    "flips": "flip agreement",
    "flips_masked": "flip agreement (masked words)",
    "kept": "kept labels",
    "kept_masked": "kept labels (masked words)",
    "shapley": "Shapley agreement",
    "shapley_sign": "Shapley signs",
    "signed": "signed attributions",
    "signed_top": "signs of the top tokens",
    "response": "response loyalty",
    "response_masked": "response loyalty (masked words)",
    "response_partial": "response, given the number of words",
    "top_k_overlap": "top-k overlap",
    "kendall_tau": "Kendall’s τ",
    "teacher_token_f1": "teacher token F1",
    "student_token_f1": "student token F1",
    **{
        f"{owner}{part}": f"{owner.replace('_', ' ')}span {title}"
        for owner in ("", "teacher_", "student_")
        for part, title in (("span_f1", "F1"), ("span_precision", "precision"), ("span_recall", "recall"))
    },
    "macro_f1": "macro F1",
    "teacher_macro_f1": "teacher macro F1",
    "student_macro_f1": "student macro F1",
}
"""Titles of figures for which replacing underscores by spaces is not enough."""


def title_of(name: str) -> str:
    """The title of a figure or a group."""
    return TITLES.get(name) or " ".join(str(name).replace("_", " ").split())
