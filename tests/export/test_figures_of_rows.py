"""Figures of an exported model that some rows do not define."""

from __future__ import annotations

import numpy as np
import pytest

from gradistill.commands.export_figures import loyalty_of
from gradistill.data import TASKS


@pytest.mark.parametrize("own", [np.zeros((4, 1)), np.full((1, 1), 2.0)])
def test_constant_scores_have_no_loyalty(own: np.ndarray) -> None:
    """nan is less than no limit, and no JSON."""
    student = np.arange(len(own), dtype=float)[:, None]
    assert loyalty_of(own, student, TASKS["stsb"], None) == 0.0
