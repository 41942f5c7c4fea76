"""What cheaper forms of AD-KD cost, and what more labels add, in plain steps: time alone.

    python benchmarks/step_variants.py [--layers 3] [--length 64] [--rounds 5]

The set-up is that of ``step_cost.py``, trimmed, in float32. Time is the mean over as many steps as a form has in
its cycle: ``every 4`` runs its gradient objective in one of four. The last column divides by AD-KD of two labels.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import alternating, markdown, publish, ratio, shown
from step_cost import Bench, timed
from transformers import Trainer

from gradistill.objectives import Term

FORMS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "adkd": (2, {}, {}),
    "adkd, every 4": (2, {}, {"every": 4}),
    "adkd, every 16": (2, {}, {"every": 16}),
    "adkd, share 0.25": (2, {}, {"share": 0.25}),
    "adkd, 3 labels": (3, {}, {}),
    "adkd, 3 labels, view sampled": (3, {"view": "sampled"}, {}),
    "adkd, 10 labels": (10, {}, {}),
    "adkd, 10 labels, view sampled": (10, {"view": "sampled"}, {}),
}
"""Labels, changes to the objective, changes to its term."""


def trainers(folder: Path, layers: int, length: int) -> dict[str, Trainer]:
    counts = {labels for labels, _, _ in FORMS.values()}
    benches = {n: Bench(folder / str(n), layers, length, n, "float32") for n in sorted(counts)}
    found: dict[str, Trainer] = {"plain": benches[2].plain()}
    for name, (labels, changes, options) in FORMS.items():
        bench = benches[labels]
        terms = [term if term.name != "attribution_map" else formed(term, changes, options)
                 for term in bench.terms("adkd")]  # fmt: skip
        found[name] = bench.distilling("adkd", terms=terms)
        found[name].args.max_steps = 1 + max(options.get("every", 1), 2)
    return found


def formed(term: Term, changes: dict[str, Any], options: dict[str, Any]) -> Term:
    return Term(replace(term.objective, **changes), term.weight, **options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            name: timed(trainer)
            for name, trainer in trainers(Path(folder), given.layers, given.length).items()
        }
        seconds = alternating(asked, given.rounds)
    found = {
        name: {
            "plain steps": ratio(seconds[name], seconds["plain"]),
            "two labels": ratio(seconds[name], seconds["adkd"]),
        }
        for name in FORMS
    }
    table = markdown(
        [
            {
                "form": name,
                "plain steps": shown(cell["plain steps"]),
                "of AD-KD, 2 labels": shown(cell["two labels"]),
            }
            for name, cell in found.items()
        ]
    )
    options = f"--layers {given.layers} --length {given.length} --rounds {given.rounds}"
    publish("step_variants", table, found, command=f"python benchmarks/step_variants.py {options}")


if __name__ == "__main__":
    main()
