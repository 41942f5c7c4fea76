"""What 77 labels cost: forms that look at one label, or at a projection of all, and what each keeps on banking77.

    python benchmarks/many_labels.py MODELS [--layers 3] [--length 32] [--rounds 5]

Time is that of a step, in plain steps, taken in turns as in ``step_cost.py``: random rows of 77 labels, trimmed, in
float32, teacher signals stored. All views of a row would take 76 inner gradients. What a form keeps is what the run of
its student measured (MODELS/banking77, of separation_models.py): 3 layers, 2,500 rows, 4 epochs, one seed; figures of
1,500 validation rows, of response loyalty 50.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import alternating, markdown, publish, ratio, shown
from step_cost import Bench, timed

from gradistill.objectives import Term
from gradistill.recipe import load_recipe

LABELS, BATCH = 77, 8
FORMS: Mapping[str, tuple[str, str, dict[str, Any], str]] = {
    "`kd`": ("kd", "", {}, "kd"),
    "`adkd`, the teacher's label": ("adkd", "attribution_map", {"view": "teacher"}, "adkd"),
    "`adkd`, one label drawn a step": ("adkd", "attribution_map", {"view": "sampled"}, "adkd_sampled"),
    "`rationale`, the teacher's label": ("rationale", "rationale", {"view": "teacher"}, "rationale"),
    "`jacobian`, projected": ("jacobian", "", {}, "jacobian"),
    "`coalition`": ("coalition", "", {}, "coalition"),
}
"""The method, the objective that is changed, the change, and the student of separation_models.py."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    terms = {
        name: _terms(method, objective, change) for name, (method, objective, change, _) in FORMS.items()
    }
    every = [term for own in terms.values() for term in own]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder),
            given.layers,
            given.length,
            LABELS,
            "float32",
            batch=BATCH,
            recipes=("kd",),
            others=every,
        )
        asked = {"plain": timed(bench.plain())}
        for name, (method, *_) in FORMS.items():
            asked[name] = timed(bench.distilling(method, terms=terms[name]))
        seconds = alternating(asked, given.rounds)
    kept = {student: _kept(given.models / "banking77" / student) for *_, student in FORMS.values()}
    found = {
        name: {"plain steps": ratio(seconds[name], seconds["plain"]), **kept[student]}
        for name, (*_, student) in FORMS.items()
    }
    rows = [
        {
            "form": name, "plain steps": shown(cell["plain steps"]),
            **{key: f"{cell[key]:.3f}" for key in ("accuracy", "label", "response")},
        }
        for name, cell in found.items()
    ]  # fmt: skip
    options = f"--layers {given.layers} --length {given.length} --rounds {given.rounds}"
    publish(
        "many_labels", markdown(rows), found, command=f"python benchmarks/many_labels.py MODELS {options}"
    )


def _terms(method: str, objective: str, change: Mapping[str, Any]) -> list[Term]:
    entries = load_recipe(method).objectives.items()
    return [
        Term(replace(entry.objective, **change) if name == objective else entry.objective, entry.weight)
        for name, entry in entries
    ]


def _kept(run: Path) -> dict[str, float]:
    """Accuracy, and loyalties, that a student's run recorded."""
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    loyalties = {name: found["loyalty"][name]["value"] for name in ("label", "response")}
    return {"accuracy": found["eval"]["accuracy"], **loyalties}


if __name__ == "__main__":
    main()
