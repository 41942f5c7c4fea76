"""Dataclasses as groups of options: a command takes one parameter a group, and Typer sees one a field.

Typer reads the signature of a function and has no groups, so several commands would each repeat twenty parameters.
``with_option_groups`` gives the command a signature with the fields of each group instead of the group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command for Typer, with each parameter that is a dataclass replaced by the fields of that dataclass.

    Required options come first, as ``--help`` lists them. A field is annotated as a parameter of a Typer command is:
    ``name: Annotated[str, typer.Option(…)] = default``.
    Raises ValueError if two groups of one command have a field of the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            parameters += _options_of(groups[name])
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    parameters.sort(key=lambda parameter: parameter.default is not Parameter.empty)

    @wraps(command)
    def run(**options: Any) -> None:
        built = {
            name: kind(**{field.name: options.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**options, **built)

    run.__dict__["__signature__"] = Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options_of(group: Any) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
