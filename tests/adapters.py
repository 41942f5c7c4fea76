"""Tiny adapters of peft, as its users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers as tr


def save_adapter(base: Path, folder: Path, *, labels: int = 3, **changes: Any) -> Any:
    """A LoRA classifier on ``base`` with random weights, saved into ``folder``; the live model is returned."""
    kind = tr.AutoModelForTokenClassification if changes.get("task_type") == "TOKEN_CLS" else None
    model = (kind or tr.AutoModelForSequenceClassification).from_pretrained(
        base, num_labels=labels, ignore_mismatched_sizes=True
    )
    settings = {"task_type": "SEQ_CLS", "target_modules": "all-linear", "r": 2, **changes}
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(**settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder)
    return adapted.eval()
