"""The model card of an export: the model, ten lines of Python that run it, its loyalty and its costs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from gradistill.data.collator import padding_side
from gradistill.report.export_tables import (
    layer_line,
    loyalty_note,
    loyalty_rows,
    metric_rows,
    size_rows,
    speed_note,
    speed_rows,
    vocabulary_line,
)
from gradistill.report.model_card import Ready, markdown_template, markdown_text, yaml_text

TEXTS = '["a fine film", "a dull one"]'
PAIRS = '[("a fine film", "it was good"), ("a dull one", "it was bad")]'


def export_card(found: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """The card as Markdown with the hub's YAML front matter; ``found`` is what ``export.json`` holds."""
    speed = speed_rows(found)
    text = markdown_template("export_card.md.j2").render(
        front_matter=Ready(yaml_text(_front_matter(found))),
        name=(found["student"] or {}).get("name") or "Text classifier",
        teacher=found["teacher"],
        labels=found["labels"],
        multi_label=found["multi_label"],
        thresholds=found["thresholds"],
        graph=found["onnx"],
        int8=found["int8"],
        data=found["data"],
        max_length=found["max_length"],
        snippet=Ready(running_lines(found, tokenizer)),
        parity=found["parity"],
        layers=layer_line(found),
        vocabulary=vocabulary_line(found),
        size=_table(size_rows(found)),
        speed=_table(speed),
        speed_note=speed_note(found) if speed else None,
        metrics=_table(metric_rows(found)),
        trained=loyalty_note(found),
        loyalties={name: _table(loyalty_rows(found, name)) for name in found["loyalty"]},
        versions=[{"name": name, "value": value} for name, value in found["versions"].items()],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def running_lines(found: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """Python code that runs the export in its folder, with ``onnxruntime`` and ``tokenizers`` only."""
    pairs = found["data"] is not None and found["data"].get("pairs")
    example = PAIRS if pairs else TEXTS
    padding = f"direction={padding_side(tokenizer)!r}, pad_id={tokenizer.pad_token_id}"
    padding = f"{padding}, pad_token={json.dumps(str(tokenizer.pad_token), ensure_ascii=False)}".replace(
        "'", '"'
    )
    file = (found["int8"] or found["onnx"])["file"]
    config, names = 'json.load(open("config.json", encoding="utf-8"))', 'names = config["id2label"]'
    if found["multi_label"]:
        shown = (
            f'config = {config}\n{names}\nabove = 1 / (1 + np.exp(-logits)) > (config.get("thresholds") or 0.5)\n'
            "print([[names[str(k)] for k in np.flatnonzero(row)] for row in above])"
        )
    elif found["labels"]:
        shown = f'names = {config}["id2label"]\nprint([names[str(k)] for k in logits.argmax(axis=1)])'
    else:
        shown = "print(logits[:, 0])"
    return f"""import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({found["max_length"]})
tokenizer.enable_padding({padding})
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
rows = tokenizer.encode_batch({example})
columns = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
inputs = {{i.name: np.array([getattr(row, columns[i.name]) for row in rows]) for i in session.get_inputs()}}
logits = session.run(["logits"], inputs)[0]
{shown}"""


def _front_matter(found: Mapping[str, Any]) -> dict[str, Any]:
    task = (found["data"] or {}).get("task")
    return {
        "library_name": "transformers.js",
        "pipeline_tag": "text-classification",
        "tags": ["gradistill", "onnx", *(["int8"] if found["int8"] else []), *([task] if task else [])],
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Ready | None:
    """Rows as a Markdown table with escaped cells; None without rows."""
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, ["---"] + ["---:"] * (len(keys) - 1)]
    cells = [[markdown_text(row.get(key, "")) for key in keys] for row in rows]
    return Ready("\n".join("| " + " | ".join(line) + " |" for line in [*lines, *cells]))
