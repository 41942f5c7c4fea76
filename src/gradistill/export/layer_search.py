"""Find the layers that are most sensitive to INT8, and write the INT8 model with the fewest layers in float.

Each layer is kept in float in turn, and the mean absolute difference of the logits to the unquantised student's is
measured on a sample. Layers are ordered by the reduction of that difference. Then the first one, two, four … layers are
kept in float together, until the loyalty on all rows reaches the limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.export.cost import file_bytes
from gradistill.export.quantization import PLAIN, Quantization, quantize, quantized_layers

logger = logging.getLogger(__name__)

Measured = Callable[[Path], float]
"""A function that measures a figure of the INT8 model in a file."""


@dataclass(frozen=True)
class QuantizedModel:
    """An INT8 file, its loyalty, and its layers in float. ``tried`` has the reduction of the difference by each layer
    alone, and ``before`` has loyalty and bytes with all layers in INT8."""

    file: Path
    loyalty: float
    in_float: tuple[str, ...] = ()
    tried: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] | None = None
    embedding_bits: int = 8

    def as_dict(self) -> dict[str, Any]:
        """The form of ``layers`` in ``export.json``."""
        return {
            "in_float": list(self.in_float), "all_int8": self.before, "loyalty": self.loyalty,
            "bytes": file_bytes(self.file), "difference_saved": self.tried, "embedding_bits": self.embedding_bits,
        }  # fmt: skip


def quantized_within(
    source: Path,
    target: Path,
    loyalty: Measured,
    difference: Measured,
    least: float,
    how: Quantization = PLAIN,
) -> QuantizedModel:
    """Write the INT8 form of ``source`` whose ``loyalty`` is at least ``least``, with as few layers in float as needed.

    Parameters:
        ``source``: the ONNX file in float32.
        ``target``: the file to write.
        ``loyalty``: measures the loyalty of a file to the unquantised student, on all rows; 1 is complete.
        ``difference``: measures the difference of a file's logits to the student's, on a sample of rows.
        ``least``: the limit. If no choice of layers reaches it, all of them are in float.
        ``how``: how the graph is quantised. Embeddings in four bits get eight if loyalty is below the limit with four.

    Example: ``quantized_within(file, Path("model_quantized.onnx"), loyalty, difference, 0.98).in_float``
    """
    quantize(source, target, how=how)
    first = loyalty(target)
    if first < least and how.frequent is not None:
        logger.info(
            f"INT8: loyalty to the student {first:.3f} with embeddings in four bits, so they get eight"
        )
        how = replace(how, frequent=None)
        quantize(source, target, how=how)
        first = loyalty(target)
    bits = 8 if how.frequent is None else 4
    if first >= least:
        return QuantizedModel(target, first, embedding_bits=bits)
    before = {"loyalty": first, "bytes": file_bytes(target)}
    layers = list(quantized_layers(source))
    logger.info(
        f"INT8: loyalty to the student {first:.3f}, below {least:g}; trying {len(layers)} layers in float"
    )
    all_int8, tried = difference(target), dict[str, float]()
    for layer in layers:
        quantize(source, target, in_float=[layer], how=how)
        tried[layer] = all_int8 - difference(target)
    ordered = sorted(layers, key=lambda layer: -tried[layer])
    count = 1
    while True:
        kept = tuple(ordered[:count])
        quantize(source, target, in_float=kept, how=how)
        reached = loyalty(target)
        if reached >= least or count >= len(layers):
            break
        count = min(2 * count, len(layers))
    tried = {layer: float(np.round(tried[layer], 6)) for layer in ordered}
    logger.info(f"INT8: {len(kept)} layers in float, loyalty {reached:.3f}: {', '.join(kept[:4])}")
    return QuantizedModel(target, reached, kept, tried, before)
