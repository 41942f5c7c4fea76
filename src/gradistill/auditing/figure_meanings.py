"""What each figure of an audit or of a run means: a phrase for pages, tables and model cards."""

from __future__ import annotations

from gradistill.data.data_choice import LabelKind

MEANINGS = {
    "label": "share of examples on which both models predict the same label",
    "exact_match": "share of examples on which all labels of the two models agree",
    "kappa": "Cohen's kappa of the two models' labels: 0 is agreement by chance, given how frequent each label is; "
    "1 is full agreement",
    "probability": "1 − √JS of the two models' probabilities, mean; JS is the Jensen–Shannon divergence in bits, 0 "
    "to 1",
    "prediction": "Pearson's r of the two models' predictions",
    "saliency": "Spearman's ρ of the two models' token attributions for the teacher's label, mean",
    "response": "Pearson's r of the two models' changes of the log-odds of the teacher's label when words are replaced "
    "by other words of the data, mean",
    "response_masked": "response loyalty when the words are masked",
    "response_partial": "partial correlation of the changes, given the number of replaced words, mean",
    "response_slope": "slope of the student's changes on the teacher's when words are replaced; 1 is equal strength",
    "response_labels": "share of the texts with replaced words for which both models predict the same label",
    "flips": "share of the smallest edits that change the teacher's label on which the student changes to the same "
    "label",
    "flips_masked": "flip agreement when the words are masked",
    "kept": "where the teacher keeps its label under an edit of unimportant words: share on which the student keeps "
    "its label too",
    "kept_masked": "kept labels when the words are masked",
    "shapley": "Spearman's ρ of the two models' signed Shapley values of words, mean",
    "shapley_sign": "share of the teacher's top fifth of the words by Shapley value on which both signs are equal",
    "signed": "Spearman's ρ of the two models' signed attributions of words, mean",
    "signed_top": "share of the teacher's top fifth of the words by attribution on which both signs are equal",
    "expected_gradients": "Spearman's ρ of the two models' signed attributions of words, mean; the attributions are "
    "Integrated Gradients along three paths of eight steps to the text, each from other tokens of the data",
    "top_k_overlap": "share of the top fifth of the tokens that both models have in common, mean",
    "cosine": "cosine of the two models' token attributions, mean",
    "kendall_tau": "Kendall's τ-b of the two models' token attributions, mean",
    "comprehensiveness": "loss of probability when words are removed, those with high scores first, scaled between the "
    "minimum and maximum over all orders of the example's words; more is more faithful",
    "sufficiency": "the same loss with low scores first; less is more faithful",
    "infidelity": "squared error of the changes of log-odds that attributions predict for removed tokens, divided by "
    "the squared changes; 0 is exact, 1 as bad as no attributions",
    "max_sensitivity": "largest relative change of the attributions under small noise on the embeddings, mean",
    "token_f1": "F1 of the top tokens, as many as are marked, against the marked tokens",
    "iou": "intersection over union of the top tokens and the marked tokens",
    "auprc": "area under the precision-recall curve of the attributions against the marked tokens",
    "watched_share": "share of the attribution on the watched words, in texts that contain one",
    "accuracy": "share of examples with the right label",
    "macro_f1": "F1 of each class, mean over the classes",
    "correlation": "Pearson's r of predictions and scores",
}

OF_WORDS = {
    "label": "share of words to which both models give the same tag",
    "probability": "1 − √JS of the two models' probabilities of a word's tags, mean over all words; JS is the "
    "Jensen–Shannon divergence in bits, 0 to 1",
    "span": "F1 of the student's spans against the teacher's; spans match if type, first and last word are equal",
    "accuracy": "share of words with the right tag",
    "span_f1": "F1 of the predicted spans against the spans of the data, over all rows",
    "span_precision": "share of the predicted spans that are in the data",
    "span_recall": "share of the spans of the data that are predicted",
}
"""Meanings in token classification."""

OF_SCORES = {
    "saliency": "Spearman's ρ of the two models' token attributions for the prediction, mean",
    "response": "Pearson's r of the two models' changes of the prediction when words are replaced by other words of "
    "the data, mean",
    "comprehensiveness": "absolute change of the prediction when words are removed, those with high scores first, "
    "scaled between the minimum and maximum over all orders of the example's words; more is more faithful",
    "sufficiency": "the same change with low scores first; less is more faithful",
    "infidelity": "squared error of the changes of the prediction that attributions predict for removed tokens, "
    "divided by the squared changes; 0 is exact, 1 as bad as no attributions",
}
"""Meanings in a regression, where they differ."""

OF_SEVERAL_LABELS = {
    "label": "share of labels that both models predict or both do not predict, mean over the examples",
    "probability": "1 − √JS of the two models' probabilities of each label, mean over the labels; JS is the "
    "Jensen–Shannon divergence in bits, 0 to 1",
    "saliency": "Spearman's ρ of the two models' token attributions for the label that is most probable to the "
    "teacher, mean",
    "response": "Pearson's r of the two models' changes of a label's log-odds when words are replaced by other words "
    "of the data, mean over the labels",
    "response_labels": "share of labels on which both models agree, in texts with replaced words",
}
"""Meanings with several labels a row, where they differ."""


_DIFFERENT = {"classes": {}, "tokens": OF_WORDS, "scores": OF_SCORES, "multi_label": OF_SEVERAL_LABELS}


def meanings_of(kind: LabelKind) -> dict[str, str]:
    """The meanings of all figures, by name, for a kind of labels (``Task.kind``).

    Example: ``meanings_of("scores")["response"]``
    """
    return MEANINGS | _DIFFERENT[kind]
