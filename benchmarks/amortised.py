"""What does a gradient objective lose that runs at some steps only, or on some rows only, and what time does it save?

    python benchmarks/amortised.py TEACHER DATA OUTPUT --task TASK [--rows 2000]

AD-KD at every step, at every 4th and 16th, and on a quarter of the rows, beside KD. Finished runs in OUTPUT are
left alone. Prints each figure as mean [range] over the seeds and, below it, the mean difference from AD-KD at every
step, paired by seed, with a 95 % t interval. Training times compare only where nothing else ran on the machine.
"""

from __future__ import annotations

import argparse

from distilling import arguments, distilled, figures, rows_over_seeds
from measuring import markdown, publish

SEEDS = (0, 1, 2)
REFERENCE = "adkd"
SETTINGS = {
    "kd": (),
    REFERENCE: (),
    "adkd, every 4": ("objectives.attribution_map.every=4",),
    "adkd, every 16": ("objectives.attribution_map.every=16",),
    "adkd, share 0.25": ("objectives.attribution_map.share=0.25",),
}
ALIKE = ("training.learning_rate=1e-4", "training.batch_size=16")


def main() -> None:
    given = arguments(__doc__, rows=2000).parse_args()
    found = {(seed, name): figures_of(given, seed, name) for seed in SEEDS for name in SETTINGS}
    over_seeds = {name: [found[seed, name] for seed in SEEDS] for name in SETTINGS}
    reference = over_seeds[REFERENCE]
    rows = [
        row for name, runs in over_seeds.items() for row in rows_over_seeds(name, runs, reference, REFERENCE)
    ]
    command = f"python benchmarks/amortised.py TEACHER DATA OUTPUT --task {given.task} --rows {given.rows}"
    every = {f"{setting}, seed {seed}": values for (seed, setting), values in found.items()}
    title = f"{given.task}, {given.rows} rows, 2 epochs, {len(SEEDS)} seeds"
    publish(f"amortised_{given.task}", f"{title}\n\n{markdown(rows)}", every, command=command)


def figures_of(given: argparse.Namespace, seed: int, setting: str) -> dict[str, float]:
    folder = given.output / given.task / f"{setting.replace(', ', '-').replace(' ', '-')}-{seed}"
    method = setting.partition(",")[0]
    heavy = ("objectives.attribution_map.weight=10",) if method == REFERENCE else ()
    options = ("--method", method, "--epochs", "2", "--seed", str(seed))
    metrics = distilled(given, folder, options, (*ALIKE, *heavy, *SETTINGS[setting]))
    return {**figures(metrics), "training, s": metrics["timing"]["train_s"]}


if __name__ == "__main__":
    main()
