"""What people see and ship: terminal views and the model card."""

from gradistill.data.words import WordScore, words_from_pieces
from gradistill.printing import printable
from gradistill.report.card import model_card
from gradistill.report.terminal import Explanation, heat_map, render, results_table

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
