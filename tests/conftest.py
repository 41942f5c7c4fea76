"""Shared by all tests: no network, quiet libraries, deterministic torch."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, as well

import jaxtyping
import pytest
import torch
import transformers
from hypothesis import settings


def _checked_once(*, typechecker: Any) -> Any:
    """As ``jaxtyped``, but for functions inside others: each call of the outer one would check the inner one anew."""
    check = _JAXTYPED(typechecker=typechecker)
    return lambda made: made if "<locals>" in made.__qualname__ else check(made)


_JAXTYPED = jaxtyping.jaxtyped
jaxtyping.jaxtyped = _checked_once
os.fsync = lambda handle: None  # no file of a test has to survive a power cut
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None, max_examples=50)  # a busy one is slow, not wrong
settings.load_profile("any machine")


WHOLE_JOBS = {
    "bench", "cli", "commands", "demo", "export", "report", "training/test_amortising", "training/test_answers_first",
    "training/test_distributed", "training/test_runs", "training/test_shares", "training/test_stored",
    "training/test_trainer_parity", "training/test_weight_average",
}  # fmt: skip
"""Folders and files whose tests run whole jobs or trainings, as users run them. Shapes are checked in all others, such
as test_trainer.py with every method: a quarter of a job's time goes there."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    folder = item.path.parent.name
    whole = not WHOLE_JOBS.isdisjoint({folder, f"{folder}/{item.path.stem}"})
    jaxtyping.config.update("jaxtyping_disable", whole)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """``--quiet`` of one test is not that of the next."""
    from gradistill.printing import LOGGER

    before = LOGGER.level
    yield
    LOGGER.setLevel(before)


@pytest.fixture(autouse=True, scope="session")
def _libraries_stay() -> None:
    """Every training collects garbage, and would look through all that the libraries hold: a third of a second."""
    import gradistill.training.trainer  # noqa: F401 (loads what all tests need)

    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["GRADISTILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny models and tables on disk, from which whole jobs run in a second or two."""
    from small import Small

    return Small(tmp_path_factory.mktemp("small"))
