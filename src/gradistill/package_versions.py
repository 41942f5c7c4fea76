"""Which versions of packages a file was made with."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


def package_versions(*packages: str) -> dict[str, str]:
    """The installed version of each package, under its name."""
    return {name: _installed(name) for name in packages}


_installed = cache(version)  # it is read from disk, and a run asks for the same ones ten times


def installing(extra: str) -> str:
    """How to install an extra, from a package index and in a clone.

    Example: ``installing("export")``
    """
    return f"pip install 'gradistill[{extra}]' (in a clone of gradistill: pip install '.[{extra}]')"
