"""What a step of every method costs, in steps of plain cross-entropy; ``gradistill methods`` shows it.

    python benchmarks/method_costs.py [--layers 3] [--length 64] [--rounds 3] [--objectives NAME ...]

The set-up is that of ``step_cost.py``: 2 labels, float32, 1024 tokens a step, stored teacher. A method of
several stages costs what its first one does. Writes ``costs.json`` beside the recipes. With ``--objectives`` it only
prints what a step of ``kd`` costs with each of these objectives beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from measuring import alternating, machine, markdown, publish, ratio, shown
from step_cost import Bench, timed

from gradistill import recipe
from gradistill.objectives import Term, all_objectives
from gradistill.recipe import load_recipe, shipped_methods

WRITTEN = Path(recipe.__file__).parent / "costs.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objectives", nargs="+", default=[])
    given = parser.parse_args()
    if given.objectives:
        beside_kd(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.layers, given.length, 2, "float32", recipes=shipped_methods())
        trainers = {"plain": bench.plain()}
        for name in shipped_methods():
            trainers[name] = bench.distilling(name, terms=first_stage(name))
        seconds = alternating({name: timed(trainer) for name, trainer in trainers.items()}, given.rounds)
    costs = {name: ratio(seconds[name], seconds["plain"]) for name in shipped_methods()}
    command = (
        f"python benchmarks/method_costs.py --layers {given.layers} --length {given.length} "
        f"--rounds {given.rounds}"
    )
    text = markdown([{"method": name, "step": shown(cost)} for name, cost in costs.items()])
    publish("method_costs", text, costs, command=command)
    setting = f"{given.layers} layers, {given.length} tokens, float32, trimmed where exact"
    whole = {"command": command, "machine": machine(), "setting": setting, "costs": costs}
    WRITTEN.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def beside_kd(given: argparse.Namespace) -> None:
    kd = first_stage("kd")
    beside = {name: [*kd, Term(all_objectives()[name]())] for name in given.objectives}
    others = [term for terms in beside.values() for term in terms]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.layers, given.length, 2, "float32", recipes=("kd",), others=others)
        trainers = {"plain": bench.plain(), "kd": bench.distilling("kd")}
        trainers |= {f"kd + {name}": bench.distilling("kd", terms=terms) for name, terms in beside.items()}
        seconds = alternating({name: timed(trainer) for name, trainer in trainers.items()}, given.rounds)
    for name in trainers:
        print(f"{name:40} {shown(ratio(seconds[name], seconds['plain']))}")


def first_stage(method: str) -> list[Term]:
    """The terms that run at the start, for the few steps that are timed."""
    return [Term(t.objective, t.weight) for t in load_recipe(method).objectives.values() if t.start == 0]


if __name__ == "__main__":
    main()
