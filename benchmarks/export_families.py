"""Which architecture families ``gradistill export`` writes with parity, and which it refuses, with the reason.

    python benchmarks/export_families.py [FAMILY ...]

The tiny models of the contract tests (tests/families.py), with weights large enough for logits of about 1. Parity is
that of the command: one token, a row of full length, a padded batch. The table goes to docs/export.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measuring import markdown, publish

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from families import FAMILIES, VOCABULARY, build  # noqa: E402
from gradistill.auditing.onnx_predictor import onnx_session  # noqa: E402
from gradistill.errors import GradistillError  # noqa: E402
from gradistill.export.onnx_export import write_onnx  # noqa: E402
from gradistill.export.parity import check_batches, made_batches, torch_logits  # noqa: E402
from gradistill.export.quantization import quantize, quantized_layers  # noqa: E402
from wordpiece import tokenizer  # noqa: E402

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LENGTH = 60
"""Tokens of the row of full length: RoBERTa's kind has 64 positions, two of them unused."""

SPREAD = {"initializer_range": 0.3}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(FAMILIES)
    with TemporaryDirectory() as folder:
        rows = [_tried(name, Path(folder) / name) for name in names]
    if names == list(FAMILIES):
        text = markdown([_shown(row) for row in rows])
        publish(
            "export_families",
            text,
            rows,
            command="python benchmarks/export_families.py",
            page=ROOT / "docs" / "export.md",
        )
    else:
        print(markdown([_shown(row) for row in rows]))


def _tried(family: str, folder: Path) -> dict[str, Any]:
    words = tokenizer((*SPECIAL, *(f"w{k}" for k in range(VOCABULARY - len(SPECIAL)))))
    model = build(family, **SPREAD)
    row: dict[str, Any] = {"family": family, "class": type(model).__name__}
    file, small = folder / "model.onnx", folder / "model_quantized.onnx"
    try:
        facts = write_onnx(model, words, file)
        batches = made_batches(model, words, LENGTH, facts["inputs"])
        session = onnx_session(file)
        parity = check_batches(model, lambda columns: session.run(["logits"], dict(columns))[0], batches)
        quantize(file, small)
        session = onnx_session(small)
        differences = [
            np.abs(session.run(["logits"], columns)[0] - torch_logits(model, columns)).max()
            for columns in batches.values()
        ]
    except GradistillError as error:
        return row | {"refused": error.what}
    size = max(float(np.abs(torch_logits(model, columns)).max()) for columns in batches.values())
    return row | {
        "float32": parity["largest_difference"], "int8": float(max(differences)), "largest_logit": size,
        "layers": len(quantized_layers(file)),
    }  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, str]:
    if "refused" in row:
        return {"family": row["family"], "class": row["class"], "float32": f"refused: {row['refused']}",
                "INT8": "", "largest logit": "", "layers in INT8": ""}  # fmt: skip
    return {
        "family": row["family"], "class": row["class"], "float32": f"{row['float32']:.1e}",
        "INT8": f"{row['int8']:.2f}", "largest logit": f"{row['largest_logit']:.1f}",
        "layers in INT8": str(row["layers"]),
    }  # fmt: skip


if __name__ == "__main__":
    main()
