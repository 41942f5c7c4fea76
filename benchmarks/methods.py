"""Every method beside every other on one task: the task's metrics and three loyalties, over three seeds.

    python benchmarks/methods.py TEACHER DATA OUTPUT --task TASK [--rows 500] [--validation-rows 500] [--only kd adkd …]

A 3-layer student each, from the same layers of the teacher, the same rows, learning rate, batch size and number of
epochs; otherwise the shipped recipe, and below it what was tried for the recipe of our own. Figures are over the first
``--validation-rows`` rows. ``--also`` adds settings. Finished runs in OUTPUT are left alone; two
run at a time, on one core each, so their times are not compared: method_costs.py has the cost of a step. Prints each
figure as mean [range] over the seeds and, below it, the mean difference from KD, paired by seed, with a 95 % t
interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from distilling import arguments, distilled, figures, precision, rows_over_seeds, shortened, two_at_a_time
from measuring import markdown, publish

from gradistill.bench.plan import KEEP_LAST
from gradistill.recipe import shipped_methods

SEEDS = (0, 1, 2)
REFERENCE = "kd"
STILL = ("student.embeddings=frozen", "student.dropout=none")
"""What the recipes with gradient directions need: KD with it tells how much of their lead it is."""
TOKENS = ("objectives.rationale.unit=token", "objectives.rationale.target=log_odds")
OF_ONE = (*TOKENS, "objectives.rationale.view=teacher")
TAUGHT = ("objectives.gradient_alignment.view=teacher",)
SETTINGS: dict[str, tuple[str, ...]] = {
    **{method: () for method in shipped_methods() if method != "pretrain"},
    "kd, still": STILL,
    "gkd, teacher's label": TAUGHT,
    "gkd_cls, teacher's label": TAUGHT,
    "adkd, weight 10": ("objectives.attribution_map.weight=10",),
    "jacobian, and map": ("objectives.attribution_map.weight=1",),
    "rationale, log odds": ("objectives.rationale.target=log_odds",),
    "rationale, logits": ("objectives.rationale.target=logit",),
    "rationale, margin": ("objectives.rationale.target=margin",),
    "rationale, no direction": ("objectives.rationale.direction=0",),
    "rationale, tokens": TOKENS,
    "rationale, tokens, focus": (*TOKENS, "objectives.rationale.focus=true"),
    "rationale, tokens, sign": (*TOKENS, "objectives.rationale.sign=0.3"),
    "rationale, teacher's label": (*OF_ONE, "objectives.rationale.weight=3"),
    "rationale, teacher's label, weight 1": OF_ONE,
    "rationale, and states": (  # TinyBERT's first stage before it
        *OF_ONE,
        "objectives.rationale.weight=3",
        "objectives.hidden_states.end=0.5",
        "objectives.attention_scores.end=0.5",
    ),
}
ALIKE = ("training.learning_rate=1e-4", "training.batch_size=16", *KEEP_LAST)


def main() -> None:
    parser = arguments(__doc__, rows=500, bf16=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--validation-rows", type=int, default=500)
    parser.add_argument(
        "--first", type=int, help="draw the training rows from the first so many of train.csv"
    )
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--also", nargs="+", action="append", default=[], metavar="NAME CHANGE")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    given = parser.parse_args()
    given.data = shortened(
        Path(given.data),
        given.output / "data" / given.task,
        validation=given.validation_rows,
        train=given.first,
    )
    settings = {name: SETTINGS[name] for name in given.only} | {n: tuple(rest) for n, *rest in given.also}
    found = two_at_a_time(partial(figures_of, given, settings), list(product(settings, given.seeds)))
    reference = [found[REFERENCE, seed] for seed in given.seeds]
    rows = [
        row
        for name in settings
        for row in rows_over_seeds(name, [found[name, seed] for seed in given.seeds], reference, REFERENCE)
    ]
    first = f"--first {given.first} " if given.first else ""
    command = (
        f"python benchmarks/methods.py TEACHER DATA OUTPUT --task {given.task} {first}--rows {given.rows} "
        f"--epochs {given.epochs} --validation-rows {given.validation_rows}{' --bf16' if given.bf16 else ''}"
    )
    drawn = f"of the first {given.first}, " if given.first else ""
    title = f"{given.task}, {given.rows} rows, {drawn}{given.epochs} epochs, {len(given.seeds)} seeds"
    every = {f"{name}, seed {seed}": values for (name, seed), values in found.items()}
    name = f"methods_{given.task}_{given.first}" if given.first else f"methods_{given.task}"
    publish(name, f"{title}\n\n{markdown(rows)}", every, command=command)


def figures_of(
    given: argparse.Namespace, settings: Mapping[str, Sequence[str]], name: str, seed: int
) -> dict[str, float]:
    folder = given.output / given.task / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    options = ("--method", name.partition(",")[0], "--epochs", str(given.epochs), "--seed", str(seed))
    changes = (*ALIKE, *settings[name], *precision(given))
    return figures(distilled(given, folder, options, changes))


if __name__ == "__main__":
    main()
