"""Which versions of packages a file was made with."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


def package_versions(*packages: str) -> dict[str, str]:
    """The installed version of each package, under its name."""
    return {name: _installed(name) for name in packages}


_installed = cache(version)  # it is read from disk, and a run asks for the same ones ten times
