"""Students of another width: every family makes one that predicts and is saved, or is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from families import FAMILIES, build, collated
from gradistill.batch import Batch
from gradistill.errors import ModelError
from gradistill.models.loading import load_classifier
from gradistill.models.student import narrow_student

REFUSED = {"distilbert", "funnel", "gpt2"}
"""They call their sizes otherwise."""


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_narrow_student_predicts_and_is_saved_or_is_refused(
    family: str, layers: int, tmp_path: Path
) -> None:
    teacher = build(family)
    if family in REFUSED:
        with pytest.raises(ModelError, match="the width of a|does not work|multiple of"):
            narrow_student(teacher, layers, 8)
        return
    student = narrow_student(teacher, layers, 8)
    student.save_pretrained(tmp_path)
    loaded, _ = load_classifier(tmp_path)
    inputs = Batch.of(collated()).inputs
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**inputs).logits, student.eval()(**inputs).logits)
    assert loaded.config.hidden_size == 8
    assert loaded.config.num_hidden_layers == layers
