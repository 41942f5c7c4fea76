"""Signals: what one model returns about one batch. One file a signal, from cheap to expensive in ``SIGNALS``."""

from gradistill.signals.attention_vectors import AttentionVectors, Part
from gradistill.signals.attribution_scores import AttributionScores
from gradistill.signals.base import Layout, Signal, TargetSignal
from gradistill.signals.cls_gradient import ClsGradient
from gradistill.signals.compute import SignalValues, compute_signals
from gradistill.signals.copy_logits import CopyLogits
from gradistill.signals.counterfactual import CounterfactualLogits, CounterfactualTokens, EditedLogits
from gradistill.signals.forward_pass import ForwardPass, Needs
from gradistill.signals.input_gradient import InputGradient
from gradistill.signals.interchange_logits import InterchangeLogits
from gradistill.signals.logits import Logits
from gradistill.signals.noise_logits import NoiseLogits
from gradistill.signals.states import ClsStates, States
from gradistill.signals.word_copy_logits import WordCopyLogits
from gradistill.signals.word_scores import WordScores, WordsRead

SIGNALS = (
    Logits,
    CopyLogits,
    WordCopyLogits,
    WordsRead,
    NoiseLogits,
    InterchangeLogits,
    EditedLogits,
    CounterfactualLogits,
    CounterfactualTokens,
    ClsStates,
    States,
    AttentionVectors,
    InputGradient,
    ClsGradient,
    AttributionScores,
    WordScores,
)

__all__ = [
    "SIGNALS",
    "AttentionVectors",
    "AttributionScores",
    "ClsGradient",
    "ClsStates",
    "CopyLogits",
    "CounterfactualLogits",
    "CounterfactualTokens",
    "EditedLogits",
    "ForwardPass",
    "InputGradient",
    "InterchangeLogits",
    "Layout",
    "Logits",
    "Needs",
    "NoiseLogits",
    "Part",
    "Signal",
    "SignalValues",
    "States",
    "TargetSignal",
    "WordCopyLogits",
    "WordScores",
    "WordsRead",
    "compute_signals",
]
