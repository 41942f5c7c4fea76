"""What waiting and threads cost beside other processes: steps of training, default beside each way of OpenMP.

    python benchmarks/contention.py [--busy 0 1 6] [--rounds 5] [--steps 6]

A child process for each way trains one small model (3 layers × 384, 16 texts of 32 tokens), a few steps at a time, in
turns: all but one sleep. Beside them run as many busy processes as ``--busy`` says. Printed are ratios to the default,
round by round: the median, with the lowest and highest. The load that the machine has anyway is printed too, for a
ratio holds for the load that it was measured beside. What gradistill chooses is ``gradistill.cli.cpu_load``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from measuring import alternating, markdown, publish, ratio, shown

WAYS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "one thread, passive": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
}
OURS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "GOMP_SPINCOUNT")

CHILD = """
import sys, time
import torch
from transformers import BertConfig, BertForSequenceClassification
torch.manual_seed(0)
size = dict(hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536)
model = BertForSequenceClassification(BertConfig(vocab_size=2000, **size))
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
tokens, labels = torch.randint(0, 2000, (16, 32)), torch.randint(0, 2, (16,))
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(time.perf_counter() - start, flush=True)
"""


class Child:
    """A process that trains as many steps as it is asked for, and sleeps otherwise."""

    def __init__(self, variables: dict[str, str]) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in OURS} | variables
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        self._answer()

    def seconds(self, steps: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 6])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    children = {name: Child(variables) for name, variables in WAYS.items()}
    rows, figures = [], {}
    for busy in given.busy:
        with busy_processes(busy):
            before = os.getloadavg()[0]
            contenders = {
                name: lambda child=child: child.seconds(given.steps) for name, child in children.items()
            }
            seconds = alternating(contenders, given.rounds)
        ratios = {
            name: ratio(taken, seconds["default"]) for name, taken in seconds.items() if name != "default"
        }
        rows.append(
            {"busy processes": busy, "load before": f"{before:.1f}"}
            | {k: shown(v) for k, v in ratios.items()}
        )
        figures[str(busy)] = {"load_before": before, "seconds": seconds, "ratios": ratios}
        print(markdown(rows[-1:]), flush=True)
    for child in children.values():
        child.process.kill()
    command = f"python benchmarks/contention.py --rounds {given.rounds} --steps {given.steps}"
    publish("contention", markdown(rows), figures, command=command)


if __name__ == "__main__":
    main()
