"""Commands that refuse an option given twice. Click takes the last one, so the first would be ignored in silence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from typer.core import TyperCommand


class StrictCommand(TyperCommand):
    """A command whose options hold one value each, unless they are lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click has it. Raises BadParameter for an option that is given twice."""
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
