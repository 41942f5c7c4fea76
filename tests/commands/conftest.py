"""Jobs without what other tests look at."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty drawings: matplotlib takes a third of a tiny audit, and tests/report looks at real ones."""
    monkeypatch.setattr(
        "gradistill.report.audit_plots.svg", lambda draw, title, height, legend: "<svg></svg>"
    )
