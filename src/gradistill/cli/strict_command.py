"""Commands that refuse an option given twice, and several processes if they work in one only.

Click takes the last of two options, so the first would be silently ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand

from gradistill.errors import RecipeError

_WRITE_NOTHING = frozenset({"methods", "tasks"})
_IN_SEVERAL_PROCESSES = frozenset({"finetune", "distill", "pretrain", "signals"})
"""The commands that work in several processes of torchrun or ``accelerate launch``."""


class StrictCommand(TyperCommand):
    """A command whose options take one value each, unless they are lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as click does. Raises BadParameter for an option that is given twice."""
        order: Any = self.make_parser(ctx).parse_args(args=list(args))[2]
        single = [
            part for part in order
            if part.param_type_name == "option" and not (part.multiple or part.is_flag or part.count)
        ]  # fmt: skip
        for option, times in Counter(single).items():
            if times > 1 and not ctx.resilient_parsing:
                message = f"it was given {times} times, and takes one value"
                raise typer.BadParameter(message, ctx=ctx, param=option)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run as click does. Raises RecipeError if several processes would write the same files."""
        started = os.environ.get("WORLD_SIZE") or "1"
        if started != "1" and self.name not in _IN_SEVERAL_PROCESSES | _WRITE_NOTHING:
            raise RecipeError(
                f"{started} processes were started (WORLD_SIZE), and gradistill {self.name} works in one",
                expected=f"one process; {', '.join(sorted(_IN_SEVERAL_PROCESSES))} train or build in several",
                remedy="start it without torchrun or accelerate launch",
            )
        return super().invoke(ctx)
