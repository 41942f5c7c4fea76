"""The attribution methods that there are, found by importing this folder."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.integrated import Integrated
from gradistill.errors import RecipeError, nearest
from gradistill.signals.forward_pass import ForwardPass


@runtime_checkable
class Method(Protocol):
    """See the package's docstring."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]: ...


@runtime_checkable
class WithAttributions(Method, Protocol):
    """A method whose scores are the norms of attributions, one vector a token. ``reruns``: it runs the model again."""

    reruns: ClassVar[bool]

    def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> Integrated: ...


@cache
def methods() -> dict[str, type[Any]]:
    """The classes by name, in alphabetical order."""
    package = __name__.rpartition(".")[0]
    path = import_module(package).__path__
    rooms = [import_module(f"{package}.{found.name}") for found in iter_modules(path) if found.name[0] != "_"]
    kinds = [kind for room in rooms for kind in vars(room).values()]
    ours = {
        k.name: k
        for k in kinds
        if isinstance(k, type) and k.__module__.startswith(f"{package}.") and hasattr(k, "title")
    }
    return dict(sorted(ours.items()))


def method(name: str, **options: Any) -> Method:
    """The method of this name; options that it does not know are refused. Raises RecipeError."""
    if name not in methods():
        raise RecipeError(
            f"the attribution method {name!r}",
            expected="one of those there are",
            remedy=nearest(name, methods()),
        )
    kind = methods()[name]
    known = [field.name for field in fields(kind)]
    if strange := sorted(options.keys() - set(known)):
        raise RecipeError(
            f"the attribution method {name} has no {', '.join(strange)}",
            expected=f"any of {', '.join(known)}" if known else "no options",
            remedy="leave it out, or take another method",
        )
    return kind(**options)
