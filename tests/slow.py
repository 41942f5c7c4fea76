"""Parameters of a test that are left out of ``make test``, and run by ``make test-all``."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: object) -> Any:
    """A set of parameters with the mark ``slow``.

    Example: ``@pytest.mark.parametrize("labels", [2, slow(3)])``
    """
    return pytest.param(*values, marks=pytest.mark.slow)
