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

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)


WHOLE_JOBS = {"bench", "cli", "commands", "demo", "export", "report"}
"""Folders whose tests run whole jobs, as users run them. Shapes are checked in all other folders: a quarter of a job's
time goes there."""
WHOLE_TRAININGS = {
    "amortising", "answers_first", "distributed", "runs", "shares", "stored", "trainer_parity", "weight_average",
}  # fmt: skip
"""The same for whole trainings; those of test_trainer.py, of every method, are checked."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    folder, name = item.path.parent.name, item.path.stem.removeprefix("test_")
    whole = folder in WHOLE_JOBS or (folder == "training" and name in WHOLE_TRAININGS)
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
