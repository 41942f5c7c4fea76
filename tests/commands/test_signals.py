"""Stores from the commands: built once, found again, refused, repaired, listed, deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gradistill.commands import signal_stores as room
from gradistill.commands.signal_stores import StoreChoice, StoreSettings, check, delete, describe, stores
from gradistill.commands.store_signals import store_signals
from gradistill.errors import RecipeError, StoreError
from gradistill.recipe import Recipe, load_recipe
from gradistill.store import build_plan, writer
from gradistill.store.manifest import MANIFEST
from slow import slow
from small import logged


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build_plan, "SHARD_BYTES", 2000)
    return tmp_path / "cache"


def recipe(method: str = "adkd", *changes: str) -> Recipe:
    return load_recipe(method, changes=["training.epochs=1", "training.batch_size=8", *changes])


def store(small: Any, folder: Path | None, *changes: str, **options: Any) -> Path:
    return store_signals(
        str(small.teachers["two"]),
        small.choice("two"),
        folder,
        recipe("adkd", *changes),
        settings=StoreSettings(**options),
    )


def weights(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_one_store_serves_methods_with_and_without_changed_words(small: Any, tmp_path: Path) -> None:
    """Only the second looks at the words of the rows."""
    teacher, data = str(small.teachers["two"]), small.choice("two")
    kept = store_signals(teacher, data, tmp_path / "store", recipe("kd"), others=[recipe("coalition")])
    for method in ("kd", "coalition"):
        small.distilled(method, "two", tmp_path / method, signals=StoreChoice(str(kept)))
        small.distilled(method, "two", tmp_path / f"{method} online", signals=StoreChoice("online"))
        assert weights(tmp_path / method) == weights(tmp_path / f"{method} online")


def test_auto_builds_once_and_a_second_student_reads(small: Any, tmp_path: Path, cache: Path) -> None:
    heard: list[str] = []
    with logged(heard):
        small.distilled("adkd", "two", tmp_path / "first")
    (kept,) = stores(cache)
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert any(line.startswith("teacher signals: 0.0 MB into") for line in heard)
    # another seed and depth: the same rows, the same questions
    with logged(heard):
        small.distilled("adkd", "two", tmp_path / "second", "training.seed=1", "student.layers=1")
    assert stores(cache) == [kept]
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    timing = json.loads((tmp_path / "second/metrics.json").read_text())["timing"]
    assert timing["signals_s"] > 0


@pytest.mark.parametrize("kind", [slow("three"), "score"])
def test_one_store_serves_methods_that_look_from_different_views(
    kind: str, small: Any, tmp_path: Path
) -> None:
    methods = ("gkd_cls", "adkd", "rationale")
    changes = ["student.layers=2", "training.batch_size=8"]
    recipes = [load_recipe(method, changes=changes, authors_settings=False) for method in methods]
    folder = store_signals(
        str(small.teachers[kind]), small.choice(kind), tmp_path / "store", recipe("kd"), others=recipes,
    )  # fmt: skip
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for method in methods:
        small.distilled(method, kind, tmp_path / method, "student.layers=2", signals=StoreChoice(str(folder)))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("kind", [slow("two"), "three", slow("score")])
def test_a_float32_store_makes_the_student_that_the_teacher_makes(
    kind: str, small: Any, tmp_path: Path
) -> None:
    online = small.distilled("gkd", kind, tmp_path / "online", signals=StoreChoice("online"))
    stored = small.distilled("gkd", kind, tmp_path / "stored", signals=StoreChoice("auto", "float32"))
    # a correlation of ten scores multiplies the last digits in which batches that were padded otherwise differ
    assert stored["eval"] == pytest.approx(online["eval"], abs=1e-4 if kind == "score" else 1e-6)
    for name, found in online["loyalty"].items():
        if found:
            assert stored["loyalty"][name]["value"] == pytest.approx(found["value"], abs=1e-4), name


def test_online_leaves_no_store(small: Any, tmp_path: Path, cache: Path) -> None:
    small.distilled("kd", "two", tmp_path / "run", signals=StoreChoice("online"))
    assert not cache.exists()


def test_a_folder_serves_only_what_it_was_made_for(small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "store")
    small.distilled("adkd", "two", tmp_path / "fits", signals=StoreChoice(str(folder)))
    for changes, difference in (
        (("training.max_train_rows=10",), "data: "),
        (("training.max_length=9",), "max_length: 64 in the store, 9 expected"),
        (
            ("objectives.attribution_map.view=own",),
            r"signals.AttributionScores/log_odds/own\S*: missing in the store",
        ),
    ):
        with pytest.raises(StoreError, match=f"(?s)for something else:.*{difference}"):
            small.distilled("adkd", "two", tmp_path / "run", *changes, signals=StoreChoice(str(folder)))
    with pytest.raises(StoreError, match=r"(?s)holds no manifest.json.*build it: gradistill signals"):
        small.distilled("adkd", "two", tmp_path / "run", signals=StoreChoice(str(tmp_path / "none")))


@pytest.mark.parametrize("repair", [False, True])
def test_a_store_of_more_signals_than_are_asked_for_stands(repair: bool, small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "store")
    before = (folder / "manifest.json").read_bytes()
    settings = StoreSettings(repair=repair)
    store_signals(str(small.teachers["two"]), small.choice("two"), folder, recipe("kd"), settings=settings)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_store_gets_the_signals_of_another_method_and_serves_both(small: Any, tmp_path: Path) -> None:
    """The first has no words, as it replaces none; the second does."""
    teacher, data = str(small.teachers["two"]), small.choice("two")
    folder = store(small, tmp_path / "store")
    before = describe(folder)["signals"]
    store_signals(teacher, data, folder, recipe("coalition"))
    assert describe(folder)["signals"][: len(before)] == before
    check(folder, verify="full")
    at_once = store_signals(teacher, data, tmp_path / "one", recipe("coalition"), others=[recipe("adkd")])
    for method in ("adkd", "coalition"):
        for kept in (folder, at_once):
            small.distilled(method, "two", tmp_path / kept.name / method, signals=StoreChoice(str(kept)))
        # the last bits of a signal may depend on what is computed together
        ours, theirs = (
            load_file(tmp_path / kept.name / method / "model.safetensors") for kept in (folder, at_once)
        )
        for name, weight in ours.items():
            assert torch.allclose(weight, theirs[name], atol=1e-5), name


def test_another_teacher_is_seen(small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "store")
    other = small.distilled("kd", "two", tmp_path / "other", "training.seed=3", signals=StoreChoice("online"))
    assert other["method"] == "kd"
    with pytest.raises(StoreError, match="teacher: [0-9a-f]+"):
        store_signals(str(tmp_path / "other"), small.choice("two"), folder, recipe())


def test_damage_is_named_and_mended_alone(small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "store")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    shard = folder / "shard-00001.arrow"
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 4
    shard.write_bytes(raw)
    for wrong in (
        lambda: check(folder, verify="full"),
        lambda: small.distilled("adkd", "two", tmp_path / "run", signals=StoreChoice(str(folder))),
    ):
        with pytest.raises(StoreError, match=r"(?s)shard-00001.arrow has another checksum.*--repair"):
            wrong()
    heard: list[str] = []
    with logged(heard):
        store(small, folder, repair=True)
    assert any("shard-00001.arrow has another checksum; it is built again" in line for line in heard)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_repair_refuses_a_store_for_something_else(small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "store")
    for damage in (False, True):
        if damage:
            (folder / "shard-00001.arrow").unlink()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(StoreError, match="max_length: 64 in the store, 9 expected"):
            store(small, folder, "training.max_length=9", repair=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_cache_mends_itself(small: Any, tmp_path: Path, cache: Path) -> None:
    small.distilled("adkd", "two", tmp_path / "first")
    (kept,) = stores(cache)
    (kept / "shard-00000.arrow").write_bytes(b"")
    heard: list[str] = []
    with logged(heard):
        small.distilled("adkd", "two", tmp_path / "second")
    assert any("shard-00000.arrow has 0 bytes" in line for line in heard)
    check(kept, verify="full")
    assert weights(tmp_path / "first") == weights(tmp_path / "second")


def test_without_room_auto_asks_the_teacher(
    small: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: Usage)
    heard: list[str] = []
    with logged(heard):
        assert small.distilled("kd", "two", tmp_path / "run")["method"] == "kd"
    assert any("has 0 MB left. The teacher computes its signals at every step" in line for line in heard)


def test_it_is_described_listed_and_deleted(small: Any, tmp_path: Path) -> None:
    folder = store(small, tmp_path / "stores/one")
    about = describe(folder)
    assert about["rows"] == 20
    assert about["method"] == "adkd"
    assert about["teacher"] == str(small.teachers["two"])
    assert [column["name"].split("/")[0] for column in about["signals"]] == ["Logits", "AttributionScores"]
    (tmp_path / "stores/two").mkdir()
    (tmp_path / "stores/two" / writer.PLAN).write_text("{}")
    assert describe(tmp_path / "stores/two")["finished"] == "no"
    assert [path.name for path in stores(tmp_path / "stores")] == ["one", "two"]
    with pytest.raises(StoreError, match="is no store"):
        delete(small.teachers["two"])
    assert (small.teachers["two"] / "model.safetensors").exists()
    with writer.store_lock(folder), pytest.raises(StoreError, match="being built by another process"):
        delete(folder)
    delete(folder)
    assert not folder.exists()


def test_a_method_without_a_teacher_has_nothing_to_store(small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs no teacher"):
        store_signals(str(small.teachers["two"]), small.choice("two"), tmp_path / "s", recipe("finetune"))


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert room.cache_folder() == Path("/somewhere/gradistill/signals")
    assert MANIFEST == "manifest.json"


def test_an_encoding_without_a_store_is_refused(small: Any, tmp_path: Path) -> None:
    choice = StoreChoice("online", encoding="float16")
    with pytest.raises(RecipeError, match="--encoding float16.*--signals online"):
        small.distilled("kd", "two", tmp_path / "out", signals=choice)
