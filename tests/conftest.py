"""Shared by all tests: no network, quiet libraries, deterministic torch."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, as well

import accelerate
import jaxtyping
import pytest
import torch
import transformers
from hypothesis import settings


def _shapes_checked(*, typechecker: Any) -> Any:
    """As ``jaxtyped``, of what has a shape in its signature: pyright checks the rest. Functions inside others are left
    out too: each call of the outer one would decorate the inner one anew."""
    check = _JAXTYPED(typechecker=typechecker)
    return lambda made: check(made) if _has_shape(made) and "<locals>" not in made.__qualname__ else made


def _has_shape(made: Any) -> bool:
    """Whether a hint of a function or class names a shape, or something of its module that does."""
    hints = " ".join(map(str, getattr(made, "__annotations__", {}).values()))
    known = vars(sys.modules[made.__module__])
    return any(_SHAPE.search(str(hint)) for hint in (hints, *map(known.get, re.findall(r"\w+", hints))))


_JAXTYPED = jaxtyping.jaxtyped
_SHAPE = re.compile(r"\b(?:Bool|Float|Int|UInt8)\[")
jaxtyping.jaxtyped = _shapes_checked
os.fsync = lambda handle: None  # no file of a test has to survive a power cut
if not torch.accelerator.is_available():  # each would note every seed, and the lines that led to it
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = torch.mtia.manual_seed_all = lambda seed: None
# After each training, it looks at every object there is.
accelerate.utils.memory.clear_device_cache = lambda garbage_collection=False: None
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None, max_examples=30)  # a busy one is slow, not wrong
settings.load_profile("any machine")


WHOLE_JOBS = {
    "bench", "cli", "commands", "data/test_cells", "demo", "export", "report", "training/test_amortising",
    "training/test_answers_first", "training/test_distributed", "training/test_runs", "training/test_shares",
    "training/test_stored", "training/test_trainer_parity", "training/test_weight_average",
}  # fmt: skip
"""Folders and files whose tests run whole jobs or trainings, as users run them. Shapes are checked in all others, such
as test_trainer.py with every method: a quarter of a job's time goes there."""


QUICK_FAMILIES = {"bert", "roberta", "deberta_v2", "modernbert", "qwen3", "gpt2"}
"""Architecture families that stand for all twenty in ``make test``: two that read the first token, two that read the
last one, one that counts positions of tokens that are no padding, and one with attention of its own. ``make test-all``
runs the others (the mark ``slow``)."""


DRAWING = "gradistill.report.audit_plots.svg"


@cache
def _shares(file: Path) -> bool:
    """Whether tests of a file share what took seconds to make."""
    return 'scope="module"' in file.read_text(encoding="utf-8")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the families that ``make test`` leaves out. One process runs all tests of a file that share something
    (``--dist loadgroup``)."""
    for item in items:
        if (
            getattr(item, "callspec", None)
            and item.callspec.params.get("family", "bert") not in QUICK_FAMILIES
        ):
            item.add_marker(pytest.mark.slow)
        if _shares(item.path):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """xdist has its groups in node ids. With a pytest that it does not know they were lost for weeks, in silence."""
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist does not group tests with this pytest: see pyproject.toml")


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
    if LOGGER.level != before:  # else every logger of every package would look its level up anew
        LOGGER.setLevel(before)


@pytest.fixture(autouse=True, scope="session")
def _empty_drawings() -> Iterator[None]:
    """Matplotlib takes a third of a tiny audit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRAWING, lambda draw, title, height, legend: "<svg></svg>")
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_rows_of_response() -> Iterator[None]:
    """Each run measures it twice, on ten rows of 17 copies: a tenth of a tiny job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradistill.commands.loyalty_sample.RESPONSE_ROWS", 3)
        yield


@pytest.fixture(scope="module")
def drawings() -> Iterator[None]:
    """Audits have drawings, from the first test of a module that asks for them to its last one."""
    from gradistill.report.svg import svg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRAWING, svg)
        yield


@pytest.fixture(scope="session")
def forked() -> Any:
    """Processes that come from one clean server, which has done the slow imports once (forked_imports.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server's preloading reads nothing else
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["forked_imports"])
        worker = context.Process(target=os.getpid)
        worker.start()
        worker.join()
    return context


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Benches of a module run their cells one after the other in this process: another takes seconds to begin."""
    from in_this_process import run_all

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradistill.bench.runner.run_all", run_all)
        yield


@pytest.fixture(autouse=True, scope="module")
def _what_is_there_stays() -> None:
    """Every training collects garbage, and would look through all that is loaded by now: a third of a second."""
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
