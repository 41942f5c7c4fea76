"""The interfaces of attribution methods, and the methods of this folder by name."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.quadrature import IntegrationResult
from gradistill.errors import RecipeError, nearest
from gradistill.signals.forward_pass import ForwardPass


@runtime_checkable
class Method(Protocol):
    """An attribution method (see the package's docstring)."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]: ...


@runtime_checkable
class WithAttributions(Method, Protocol):
    """A method whose scores are norms of attributions, one vector for each token. ``reruns``: it reruns the model."""

    reruns: ClassVar[bool]

    def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> IntegrationResult: ...


@runtime_checkable
class SignedMethod(Method, Protocol):
    """A method with signed scores: positive scores support the label, negative scores oppose it."""

    def signed(self, forward: ForwardPass) -> Float[Tensor, "batch token"]: ...


def draws_tokens(method: Method) -> bool:
    """Whether the method draws tokens of the data, which a batch must then hold."""
    return getattr(method, "draws_tokens", False)


def token_scores(
    method: Method, forward: ForwardPass
) -> tuple[Float[Tensor, "batch token"], Float[Tensor, "batch token"] | None]:
    """The scores of 0 or more, and the signed scores if the method has them, from one computation.

    Signed scores of attributions are sums over the vectors' entries, so that all tokens add up to the explained value.
    """
    if isinstance(method, WithAttributions):
        attributions = method.attributions(forward).attributions
        return attributions.norm(dim=-1), attributions.sum(dim=-1)
    if isinstance(method, SignedMethod):
        signed = method.signed(forward)
        return signed.abs(), signed
    return method(forward), None


@cache
def all_methods() -> dict[str, type[Any]]:
    """The classes of all methods by name, in alphabetical order."""
    package = __name__.rpartition(".")[0]
    path = import_module(package).__path__
    modules = [import_module(f"{package}.{found.name}") for found in iter_modules(path)]
    kinds = [kind for module in modules for kind in vars(module).values()]
    ours = {
        k.name: k
        for k in kinds
        if isinstance(k, type)
        and k.__module__.startswith(f"{package}.")
        and isinstance(vars(k).get("title"), str)
    }
    return dict(sorted(ours.items()))


def draws_by_seed(name: str) -> bool:
    """Whether the method of this name has a ``seed``; false for unknown names."""
    return name in all_methods() and any(field.name == "seed" for field in fields(all_methods()[name]))


def method(name: str, **options: Any) -> Method:
    """The method of this name with these options. Raises RecipeError for unknown names and options."""
    if name not in all_methods():
        raise RecipeError(
            f"there is no attribution method {name!r}",
            expected="a known method",
            remedy=nearest(name, all_methods()),
        )
    kind = all_methods()[name]
    known = [field.name for field in fields(kind)]
    if strange := sorted(options.keys() - set(known)):
        raise RecipeError(
            f"the attribution method {name} has no option {', '.join(strange)}",
            expected=f"any of {', '.join(known)}" if known else "no options",
            remedy="leave it out, or choose another method",
        )
    return kind(**options)
