"""A store has what the teacher computed, and nothing that happens to it goes unseen."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from byte_level import byte_level
from gradistill import io
from gradistill.batch import Batch
from gradistill.errors import StoreError
from gradistill.io import digest
from gradistill.signals import States
from gradistill.store import build_plan, manifest, writer
from gradistill.store.build_plan import BuildPlan
from gradistill.store.fingerprint import word_ids_hash
from gradistill.store.manifest import MANIFEST, Manifest
from gradistill.store.reader import StoredTeacher, damaged, open_shard
from gradistill.store.writer import ProcessShare, build
from slow import slow
from small import logged
from store.stores import (
    REQUESTS,
    SMALL,
    Oracle,
    build_slowly,
    built,
    collate,
    content,
    killed_build,
    opened,
    plan,
)

FLIPS = 200


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_plan, "SHARD_BYTES", SMALL)


def batch_of(made: BuildPlan, places: list[int]) -> Batch:
    return Batch.of(collate([made.rows[place] for place in places]))


@pytest.mark.parametrize(
    ("encoding", "tolerance"), [("float32", 0.0), ("float16", 2**-11), ("int8", 1 / 254)]
)
def test_it_gives_in_any_order_what_the_teacher_computed(
    encoding: Any, tolerance: float, tmp_path: Path
) -> None:
    """Rounding moves a number by at most half a step of its encoding, of the largest number of its vector."""
    made = built(tmp_path / "store", encoding=encoding)
    assert made.shards > 3
    store = opened(made)
    order = random.Random(0).sample(range(40), 40)
    for start in range(0, 40, 8):
        batch = batch_of(made, order[start : start + 8])
        signals, wanted = store(batch, REQUESTS), Oracle()(batch, REQUESTS)
        for request in REQUESTS:
            assert signals[request].shape == wanted[request].shape
            largest = wanted[request].abs().amax(-1, keepdim=True)
            assert bool(((signals[request] - wanted[request]).abs() <= tolerance * 1.001 * largest).all()), (
                request
            )
    assert store.seconds > 0


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_the_size_is_known_before(encoding: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_plan, "SHARD_BYTES", 50_000)
    made = built(tmp_path / "store", encoding=encoding, count=400)
    written = sum(path.stat().st_size for path in made.folder.glob("*.arrow"))
    assert made.size == pytest.approx(written, rel=0.02)


def test_no_room_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(StoreError, match=r"needs .* MB, and .* has 0 MB left"):
        built(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_disk_that_fills_up_keeps_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built(tmp_path / "whole")
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(io.os, "fsync", full)
        with pytest.raises(StoreError, match=r"(?s)No space left on device.*complete shards are kept"):
            built(tmp_path / "store")
    kept = content(tmp_path / "store")
    assert len(kept) > 1
    assert not any(name.startswith(".") or name == MANIFEST for name in kept)
    teacher = Oracle()
    build(plan(tmp_path / "store"), teacher, collate)
    assert 0 < teacher.asked < 40
    assert content(tmp_path / "store") == content(whole.folder)


def test_a_disk_that_fails_once_at_any_flush_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(io.os, "fsync", flushed.append)
    whole, flushes = content(built(tmp_path / "whole").folder), len(flushed)
    for at in range(flushes):
        flushed.clear()

        def once(handle: int, at: int = at) -> None:
            flushed.append(handle)
            if len(flushed) == at + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(io.os, "fsync", once)
            with pytest.raises(StoreError, match="Input/output error"):
                built(tmp_path / f"store{at}")
        assert content(built(tmp_path / f"store{at}").folder) == whole


@pytest.mark.parametrize("kills", [8, slow(30)])
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(kills: int, tmp_path: Path, forked: Any) -> None:
    whole = content(built(tmp_path / "whole").folder)
    chance, unfinished = random.Random(0), 0
    for k in range(kills):
        folder = tmp_path / f"store{k}"
        killed_build(folder, forked, chance)
        unfinished += not (folder / MANIFEST).exists()
        build(plan(folder), Oracle(), collate)
        assert content(folder) == whole
    assert unfinished > kills / 2  # else the kills came too late to tell anything


def test_a_store_keeps_the_shards_that_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(built(tmp_path / "whole").folder)
    begun = plan(tmp_path / "store")
    writer._open_folder(begun)
    writer._write_shard(begun, 0, first := Oracle(), collate)
    monkeypatch.setattr(build_plan, "SHARD_BYTES", 2 * SMALL)
    teacher, printed = Oracle(), list[str]()
    with logged(printed):
        build(plan(tmp_path / "store"), teacher, collate)
    assert teacher.asked == 40 - first.asked
    assert [line for line in printed if line.startswith("resuming: 1 of ")]
    assert content(tmp_path / "store") == whole
    (tmp_path / "store" / "shard-00001.arrow").unlink()
    writer.rebuild(plan(tmp_path / "store"), [1], Oracle(), collate)
    assert content(tmp_path / "store") == whole


def test_every_flipped_bit_is_seen_and_its_file_named(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    files = [path for path in sorted(made.folder.iterdir()) if path.is_file()]
    chance = random.Random(0)
    for k in range(FLIPS):
        file = files[-1 - k % 4] if k % 4 else made.folder / MANIFEST
        before = file.read_bytes()
        after = bytearray(before)
        after[chance.randrange(len(after))] ^= 1 << chance.randrange(8)
        file.write_bytes(after)
        with pytest.raises(
            StoreError, match=f"{file.name}.*(is damaged|has another checksum)|is damaged: {file.name}"
        ):
            opened(made)
        file.write_bytes(before)
    opened(made)


def test_damaged_shards_are_built_again_alone(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    before = content(made.folder)
    (made.folder / "shard-00001.arrow").write_bytes(b"short")
    (made.folder / "shard-00003.arrow").unlink()
    with pytest.raises(
        StoreError, match=r"shard-00001.arrow has 5 bytes, not \d+, shard-00003.arrow is missing"
    ):
        opened(made, verify="fast")
    teacher = Oracle()
    writer.rebuild(made, [1, 3], teacher, collate)
    assert teacher.asked == len(made.rows_of(1)) + len(made.rows_of(3))
    assert content(made.folder) == before


def test_building_some_shards_again_vouches_for_no_other(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    flipped = made.folder / "shard-00000.arrow"
    raw = bytearray(flipped.read_bytes())
    raw[len(raw) // 2] ^= 1
    flipped.write_bytes(raw)
    writer.rebuild(made, [1], Oracle(), collate)
    with pytest.raises(StoreError, match="shard-00000.arrow has another checksum"):
        opened(made)


def test_a_store_for_something_else_is_not_mended(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    before = content(made.folder)
    with pytest.raises(StoreError, match="teacher: aa in the store, bb expected"):
        writer.rebuild(plan(tmp_path / "store", teacher="bb"), [0], Oracle(), collate)
    assert content(made.folder) == before


def test_a_damaged_plan_is_reported(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / writer.PLAN).write_text('{"format": 1')
    with pytest.raises(StoreError, match=r"(?s)building.json is damaged.*delete"):
        built(tmp_path / "store")


def test_a_store_for_something_else_is_refused_with_the_difference(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    other = plan(tmp_path / "store", teacher="bb")
    for wrong in (lambda: opened(other), lambda: build(other, Oracle(), collate)):
        with pytest.raises(StoreError, match=r"(?s)something else:.*teacher: aa in the store, bb expected"):
            wrong()
    with pytest.raises(StoreError, match="holds no manifest.json"):
        StoredTeacher.open(tmp_path / "none", made.made_for, made.columns, [])


def test_an_unfinished_store_for_something_else_is_refused(tmp_path: Path) -> None:
    made = plan(tmp_path / "store")
    writer._open_folder(made)
    with pytest.raises(StoreError, match="teacher: aa in the store, bb expected"):
        build(plan(tmp_path / "store", teacher="bb"), Oracle(), collate)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="files that are not a store: thesis.tex"):
        built(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_second_builder_waits_and_finds_it_done(tmp_path: Path, forked: Any) -> None:
    begun = forked.Event()
    worker = forked.Process(target=build_slowly, args=(str(tmp_path / "store"), begun))
    worker.start()
    assert begun.wait(120)
    while not (tmp_path / "store" / writer.PLAN).exists():
        time.sleep(0.001)
    teacher = Oracle()
    build(plan(tmp_path / "store"), teacher, collate)
    worker.join(60)
    assert worker.exitcode == 0
    assert teacher.asked == 0
    opened(plan(tmp_path / "store"))


def test_several_ranks_write_the_store_of_one(tmp_path: Path) -> None:
    """Rank 1 runs to its end between the first and the second meeting of rank 0."""
    one = built(tmp_path / "one")
    made, waited = plan(tmp_path / "two"), []

    def gather(failure: str | None) -> list[str | None]:
        waited.append(1)
        if len(waited) == 1:
            build(made, Oracle(), collate, share=ProcessShare(1, 2))
        return [failure, None]

    first = Oracle()
    build(made, first, collate, share=ProcessShare(0, 2, gather))
    assert 0 < first.asked < 40
    assert content(made.folder) == content(one.folder)


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("place", ["_open_folder", "_write_shard", "_finish"])
def test_where_one_rank_fails_all_do(
    place: str, failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With signals auto the one went on without a store, and the others waited for it until they were killed."""
    if failing == 1 and place != "_write_shard":
        pytest.skip("rank 1 writes shards alone")
    made, barrier = plan(tmp_path / "store"), threading.Barrier(2, timeout=60)
    given: dict[int, list[str | None]] = {0: [], 1: []}
    real, rank = getattr(writer, place), threading.local()

    def broken(*arguments: Any) -> Any:
        if rank.number == failing:
            raise StoreError("the disk has no room")
        return real(*arguments)

    monkeypatch.setattr(writer, place, broken)

    def run(number: int) -> Exception | None:
        def gather(failure: str | None) -> list[str | None]:
            given[number].append(failure)
            barrier.wait()
            return [given[k][len(given[number]) - 1] for k in (0, 1)]

        rank.number = number
        try:
            build(made, Oracle(), collate, share=ProcessShare(number, 2, gather))
        except StoreError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as threads:
        errors = list(threads.map(run, (0, 1)))
    assert errors[failing].what == "the disk has no room"
    assert f"{made.folder} failed in another process: the disk has no room" == errors[1 - failing].what
    monkeypatch.undo()
    build(made, Oracle(), collate)
    opened(made)


def test_a_batch_without_row_numbers_is_refused(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    batch = batch_of(made, [0, 1])
    with pytest.raises(StoreError, match="no row indices"):
        opened(made)(Batch(batch.inputs, batch.mask, batch.labels), REQUESTS)


def test_rows_and_signals_that_it_does_not_hold_are_named(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    batch = batch_of(made, [0, 1])
    with pytest.raises(StoreError, match=r"does not hold the rows \[7, 7\]"):
        opened(made)(replace(batch, index=torch.full_like(batch.index, 7)), REQUESTS)
    with pytest.raises(StoreError, match="does not hold the signals States/1"):
        opened(made)(batch, [States((1,))])


def test_fast_verification_sees_sizes_only(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    file = made.folder / "shard-00000.arrow"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    found = manifest.Manifest.read(made.folder)
    assert damaged(made.folder, found, verify="fast") == {}
    assert list(damaged(made.folder, found, verify="full")) == ["shard-00000.arrow"]


def test_nothing_that_is_read_can_be_changed_through_it(tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    before = content(made.folder)
    signals = opened(made)(batch_of(made, [0, 1]), REQUESTS)
    for tensor in signals.values():
        tensor.fill_(torch.nan)
    assert content(made.folder) == before


def sealed(folder: Path, **changes: Any) -> None:
    """A manifest with a checksum that fits, as anybody can make one."""
    text = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    del text["checksum"]
    (folder / MANIFEST).write_text(manifest._text(text | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rows_per_shard": 0}, r"rows_per_shard is 0, which must be 1 or more"),
        ({"rows_per_shard": -3}, r"rows_per_shard is -3"),
        ({"rows_per_shard": "8"}, r"rows_per_shard"),
        ({"rows_per_shard": 10**9}, r"shards do not add up to 40 rows"),
        ({"rows": 41}, r"shards do not add up to 41 rows"),
        ({"rows": -1}, r"rows is -1"),
        ({"tokens": None}, r"tokens"),
        ({"shards": []}, r"0 shards do not add up"),
        ({"shards": 5}, r"not iterable"),
        ({"about": 3}, r"about"),
        ({"made_for": {}}, r"signals"),
        (
            {"made_for": {"signals": [{"name": "x", "shape": [0], "per": "row", "encoding": "int8"}]}},
            r"no shape",
        ),
        (
            {"made_for": {"signals": [{"shape": [1], "per": "token", "encoding": "int8"}]}},
            r"name",
        ),
    ],
)
def test_a_manifest_with_numbers_that_no_store_has_is_refused(
    changes: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    made = built(tmp_path / "store")
    sealed(made.folder, **changes)
    with pytest.raises(StoreError, match=rf"(?s)manifest.json is damaged: .*{fault}"):
        opened(made)


@pytest.mark.parametrize("rows_per_shard", [0, -1, "x", None, 2.5])
def test_a_plan_with_numbers_that_no_store_has_is_refused(rows_per_shard: Any, tmp_path: Path) -> None:
    made = plan(tmp_path / "store")
    writer._open_folder(made)
    begun = {"made_for": made.made_for, "rows_per_shard": rows_per_shard}
    (made.folder / writer.PLAN).write_text(json.dumps(begun), encoding="utf-8")
    with pytest.raises(StoreError, match=r"building.json is damaged: its rows_per_shard is"):
        build(made, Oracle(), collate)


def shard_of(rows: int, **columns: pa.Array) -> bytes:
    arrays = {"index": pa.array(range(rows)), "length": pa.array([3] * rows), **columns}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("kind", ["text", "nothing", "other columns", "other rows", "short rows", "numbers"])
def test_a_shard_whose_checksum_fits_and_that_is_none_is_named(kind: str, tmp_path: Path) -> None:
    made = built(tmp_path / "store")
    rows = made.rows_per_shard
    short = {column.name: pa.array([b"x"] * rows, pa.large_binary()) for column in made.columns}
    raw = {
        "text": b"no arrow at all " * 40,
        "nothing": b"",
        "other columns": shard_of(rows, x=pa.array([b"x"] * rows, pa.large_binary())),
        "other rows": shard_of(
            rows + 1, **{n: pa.array([b"x"] * (rows + 1), pa.large_binary()) for n in short}
        ),
        "short rows": shard_of(rows, **short),
        "numbers": shard_of(rows, **{name: pa.array([1] * rows) for name in short}),
    }[kind]
    file = made.folder / "shard-00001.arrow"
    file.write_bytes(raw)
    shards = json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))["shards"]
    shards[1] |= {"bytes": len(raw), "sha256": io.checksum_of(file)}
    sealed(made.folder, shards=shards)
    with pytest.raises(StoreError, match=r"(?s)shard-00001.arrow is no shard: .*--repair"):
        opened(made)
    whole = built(tmp_path / "whole")
    writer.rebuild(made, [1], Oracle(), collate)
    assert content(made.folder) == content(whole.folder)


def test_an_unfinished_store_takes_no_shard_that_is_none(tmp_path: Path) -> None:
    made = plan(tmp_path / "store")
    writer._open_folder(made)
    made.shard_file(0).write_bytes(b"no arrow")
    build(made, Oracle(), collate)
    assert content(made.folder) == content(built(tmp_path / "whole").folder)


def test_an_unfinished_store_makes_a_shard_again_whose_numbers_were_changed(tmp_path: Path) -> None:
    """Its form is whole, and no manifest has its checksum yet."""
    whole = content(built(tmp_path / "whole").folder)
    made = plan(tmp_path / "store")
    writer._open_folder(made)
    shutil.copy(tmp_path / "whole" / "shard-00000.arrow", made.shard_file(0))
    raw = bytearray(made.shard_file(0).read_bytes())
    shard = open_shard(made.shard_file(0))
    name = next(iter(shard.data))
    raw[raw.index(shard.row(name, 1).tobytes())] ^= 0x40
    del shard
    made.shard_file(0).write_bytes(raw)
    build(made, Oracle(), collate)
    assert content(made.folder) == whole


def test_an_unfinished_store_keeps_shards_of_versions_that_noted_no_content(tmp_path: Path) -> None:
    built(tmp_path / "whole")
    made = plan(tmp_path / "store")
    writer._open_folder(made)
    table = pa.ipc.open_file(str(tmp_path / "whole" / "shard-00000.arrow")).get_batch(0)
    with pa.ipc.new_file(str(made.shard_file(0)), plain := table.schema.remove_metadata()) as sink:
        sink.write_batch(table.cast(plain))
    before = made.shard_file(0).read_bytes()
    build(made, Oracle(), collate)
    assert made.shard_file(0).read_bytes() == before


def test_rows_that_share_a_number_are_refused(tmp_path: Path) -> None:
    """Two encoded tables one behind the other, both numbered from 0."""
    made = built(tmp_path / "store")
    with pytest.raises(StoreError, match="40 of 80 rows have the index of another row"):
        StoredTeacher(made.folder, Manifest.read(made.folder), made.columns, [*range(40), *range(40)])


@pytest.mark.parametrize("name", ["n" * 300, "loop"])
def test_a_folder_that_cannot_be_is_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreError, match="cannot be used for a store: (File name too long|File exists)"):
        built(tmp_path / name)


def test_a_refused_build_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.txt").touch()
    with pytest.raises(StoreError, match="files that are not a store"):
        built(tmp_path / "theirs")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "theirs"]


def test_what_stands_for_an_erased_word_is_of_the_store_where_it_is_no_mask() -> None:
    """Another version may take another token; stores of encoders, which have a mask, keep their hash."""
    rows, tokens = Dataset.from_dict({"word_ids": [[0, 1], [0, -1]]}), byte_level()
    assert word_ids_hash(rows, tokens) == digest([[0, 1], [0, -1]])
    tokens.mask_token = None
    unknown = word_ids_hash(rows, tokens)
    tokens.unk_token = None
    assert len({word_ids_hash(rows, tokens), unknown, digest([[0, 1], [0, -1]])}) == 3
