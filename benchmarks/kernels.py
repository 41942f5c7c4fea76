"""What a matrix product takes on this processor, by type.

    python benchmarks/kernels.py [--rounds 9]

A product of 1024 × 1024 by 1024 × 1024 on all cores, in float32 and bfloat16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

import torch
from measuring import alternating, markdown, publish, ratio, shown

SIDE = 1024
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    products = alternating({name: _product(kind) for name, kind in TYPES.items()}, given.rounds)
    rows = _rows("product of 1024³", products, "float32")
    flops = {name: round(2 * SIDE**3 / median(taken) / 1e9) for name, taken in products.items()}
    text = f"{markdown(rows)}\n\nProducts, GFLOP/s: " + ", ".join(f"{k} {v}" for k, v in flops.items()) + "."
    figures = {"seconds": products, "GFLOP/s": flops}
    publish("kernels", text, figures, command=f"python benchmarks/kernels.py --rounds {given.rounds}")


def _rows(what: str, seconds: Mapping[str, list[float]], reference: str) -> list[dict[str, Any]]:
    return [
        {
            "what": f"{what}: {name}",
            "ms": f"{median(taken) * 1e3:.2f}",
            "times the first": shown(ratio(taken, seconds[reference])),
        }
        for name, taken in seconds.items()
    ]


def _product(kind: torch.dtype) -> Callable[[], float]:
    left, right = torch.randn(2, SIDE, SIDE).to(kind)
    return lambda: _mean_time(lambda: left @ right)


def _mean_time(run: Callable[[], object], times: int = 30) -> float:
    start = perf_counter()
    for _ in range(times):
        run()
    return (perf_counter() - start) / times


if __name__ == "__main__":
    main()
