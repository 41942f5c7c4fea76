"""Versions of installed packages, for the record in files."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


def package_versions(*packages: str) -> dict[str, str]:
    """The installed version of each package, under its name."""
    return {name: _installed(name) for name in packages}


_installed = cache(version)  # a version is read from disk, and a run needs the same ones ten times


def installing(extra: str) -> str:
    """How to install an extra, from a package index and in a clone.

    Example: ``installing("export")``
    """
    return f"pip install 'gradistill[{extra}]' (in a clone of gradistill: pip install '.[{extra}]')"
