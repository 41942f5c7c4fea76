"""Where the time of an AD-KD step goes: operators by their share of the processor's time.

    python benchmarks/profile_step.py [--recipe adkd] [--layers 3] [--length 64] [--rows 16] [--precision float32]

The trainer's own loop with a stored teacher, as in ``step_cost.py``; eight steps under torch's profiler. Prints
groups of operators, largest first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from measuring import markdown, publish
from step_cost import Bench
from torch.profiler import ProfilerActivity, profile

GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "optimizer and gradient norm": ("_fused_adamw_", "linalg_vector_norm", "_foreach_norm", "_foreach_mul_"),
    "zeroing and copying": ("fill_", "zero_", "copy_", "clone", "empty_strided"),
    "dropout's random numbers": ("bernoulli_", "native_dropout", "random_"),
    "embedding": ("embedding", "embedding_dense_backward", "index_add_"),
}
REST = "elementwise (GELU, LayerNorm, softmax and their derivatives), and everything else"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="adkd")
    for name, value in (("layers", 3), ("length", 64), ("rows", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    given = parser.parse_args()
    shares = profiled(given)
    rows = [{"operators": name, "share of the time": f"{share:.1%}"} for name, share in shares.items()]
    options = f"--recipe {given.recipe} --layers {given.layers} --length {given.length} --rows {given.rows}"
    options += f" --precision {given.precision}"
    name = "profile_step" if given.precision == "float32" else f"profile_step_{given.precision}"
    publish(name, markdown(rows), shares, command=f"python benchmarks/profile_step.py {options}")


def profiled(given: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        bench = Bench(
            store, given.layers, given.length, 2, given.precision, batch=given.rows, examples=4 * given.rows
        )
        trainer = bench.distilling(given.recipe)
        trainer.train()  # the start-up check, and what is done once
        trainer.args.max_steps = 8
        with profile(activities=[ProfilerActivity.CPU]) as watch:
            trainer.train()
    seconds: dict[str, float] = defaultdict(float)
    events: Any = watch.key_averages()
    for event in events:
        operator = event.key.removeprefix("aten::")
        group = next((name for name, members in GROUPS.items() if operator in members), REST)
        seconds[group] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {name: seconds[name] / total for name in sorted(seconds, key=lambda name: -seconds[name])}


if __name__ == "__main__":
    main()
