"""Tiny models and rows of the demo corpus, for benchmarks that ask whether something holds, not how well it learns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from gradistill.commands.finetune import finetune
from gradistill.data import DataChoice
from gradistill.demo.corpus import LABELS, make_reviews
from gradistill.models.loading import load_tokenizer
from gradistill.models.packaged import PACKAGED
from gradistill.recipe import load_recipe

ROWS = {"train": 160, "validation": 24}


@dataclass(frozen=True)
class Tiny:
    """``base`` knows no task yet, ``teacher`` has seen the rows of ``data``."""

    data: Path
    base: Path
    teacher: Path

    @classmethod
    def at(cls, folder: Path) -> Tiny:
        tiny = cls(folder / "data", folder / "base", folder / "teacher")
        if (tiny.teacher / "metrics.json").is_file():
            return tiny
        tiny.data.mkdir(parents=True, exist_ok=True)
        for split, count in ROWS.items():
            reviews = make_reviews(count, split=split)
            lines = [json.dumps({"text": r.text, "label": LABELS[r.label]}) + "\n" for r in reviews]
            (tiny.data / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        tokenizer: Any = load_tokenizer(PACKAGED)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=128,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(tiny.base)
        tokenizer.save_pretrained(tiny.base)
        recipe = load_recipe("finetune", changes=["training.epochs=2", "training.learning_rate=0.01"])
        finetune(str(tiny.base), tiny.choice, tiny.teacher, recipe)
        return tiny

    @property
    def choice(self) -> DataChoice:
        return DataChoice(str(self.data), label_column="label", text_columns=("text",))
