"""What people see and ship: terminal views and the model card."""

from gradistill.data.words import WordScore, words_from_pieces
from gradistill.report.card import model_card
from gradistill.report.terminal import Explanation, heat_map, render, results_table
from gradistill.report.words import printable

__all__ = [
    "Explanation",
    "WordScore",
    "heat_map",
    "model_card",
    "printable",
    "render",
    "results_table",
    "words_from_pieces",
]
