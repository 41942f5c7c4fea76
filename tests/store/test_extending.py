"""A store gets more signals: those that are there are kept bit for bit, and it is whole at every moment."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gradistill.batch import Batch
from gradistill.errors import StoreError
from gradistill.signals import Signal
from gradistill.store import build_plan, reader, writer
from gradistill.store.build_plan import BuildPlan
from gradistill.store.manifest import MANIFEST, Manifest
from gradistill.store.reader import StoredTeacher, damaged, open_shard
from gradistill.store.writer import PLAN, ProcessShare, build, rebuild
from slow import slow
from small import logged
from store.stores import REQUESTS, SMALL, Oracle, built, collate, content, killed_build, opened, plan

FIRST, LATER, ANOTHER = REQUESTS[:2], REQUESTS[2:], (REQUESTS[0], REQUESTS[4])
SHARD_BYTES = SMALL // 3


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_plan, "SHARD_BYTES", SHARD_BYTES)


def values(made: BuildPlan, signals: tuple[Signal, ...] = REQUESTS) -> list[torch.Tensor]:
    """What the store holds of all rows."""
    batch = Batch.of(collate([made.rows[place] for place in range(len(made.rows))]))
    found = opened(made, verify="full")(batch, signals)
    return [found[request] for request in signals]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_it_holds_what_a_store_of_all_holds_and_computes_only_what_is_new(
    encoding: Any, tmp_path: Path
) -> None:
    whole = built(tmp_path / "whole", encoding=encoding)
    before = built(tmp_path / "store", signals=FIRST, encoding=encoding)
    assert before.shards > 2
    teacher, lines = Oracle(), list[str]()
    made = plan(tmp_path / "store", signals=(*LATER, FIRST[0]), encoding=encoding)
    with logged(lines):
        build(made, teacher, collate)
    assert teacher.signals == {request.stored_as() for request in LATER}
    assert teacher.asked == 40
    assert "gets more signals: InputGradient" in "".join(lines)
    for signals in (REQUESTS, FIRST, LATER):
        part = plan(tmp_path / "store", signals=signals, encoding=encoding)
        assert same(values(part, signals), values(whole, signals))
    manifest = Manifest.read(made.folder)
    assert {path.name for path in made.folder.iterdir()} == {MANIFEST, *(s.file for s in manifest.shards)}
    again = Oracle()
    build(plan(tmp_path / "store", encoding=encoding), again, collate)
    assert again.asked == 0


@pytest.mark.parametrize("kills", [8, slow(20)])
def test_killed_at_any_moment_the_store_is_whole_and_the_next_build_ends_the_same(
    kills: int, tmp_path: Path, forked: Any
) -> None:
    build(plan(built(tmp_path / "whole", signals=FIRST).folder), Oracle(), collate)
    whole, chance, unfinished = content(tmp_path / "whole"), random.Random(0), 0
    for k in range(kills):
        before = built(tmp_path / f"store{k}", signals=FIRST)
        killed_build(before.folder, forked, chance, SHARD_BYTES)
        unfinished += (before.folder / PLAN).exists()
        values(before, FIRST)
        build(plan(before.folder), Oracle(), collate)
        assert content(before.folder) == whole
    assert unfinished > kills / 4  # else the kills came too late, or too soon, to tell anything


def test_shards_are_no_larger_than_those_of_a_new_store(tmp_path: Path) -> None:
    """A store of logits has all rows in one shard; with gradients that would be gigabytes."""
    before, whole = built(tmp_path / "store", signals=REQUESTS[:1]), built(tmp_path / "whole")
    assert before.shards * 4 < whole.shards
    build(plan(before.folder), Oracle(), collate)
    assert Manifest.read(before.folder).rows_per_shard == whole.rows_per_shard
    assert same(values(plan(before.folder)), values(whole))


def test_a_bit_that_flips_in_a_copy_before_the_end_is_seen(tmp_path: Path) -> None:
    """The checksum of a shard is taken at the end; what it has of the old ones is compared with these."""
    build(plan(built(tmp_path / "whole", signals=FIRST).folder), Oracle(), collate)
    begun_with_all(tmp_path / "store")
    for file in (tmp_path / "store").iterdir():
        if file.suffix == ".arrow" and not is_of(file, FIRST):
            raw = file.read_bytes()
            at = raw.index(open_shard(file).data[REQUESTS[0].column_name][:8].tobytes())
            file.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    build(plan(tmp_path / "store"), teacher := Oracle(), collate)
    assert teacher.asked == 40
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def is_of(file: Path, signals: tuple[Signal, ...]) -> bool:
    """Whether a shard has these signals and no others."""
    return open_shard(file).data.keys() == {signal.stored_as().column_name for signal in signals}


def test_signals_in_another_order_go_on_with_what_was_begun(tmp_path: Path) -> None:
    made = begun_with_all(tmp_path / "store")
    build(plan(made.folder, signals=(*FIRST, *reversed(LATER))), teacher := Oracle(), collate)
    assert 0 < teacher.asked < 40


def test_a_full_disk_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    made = begun_with_all(tmp_path / "store")
    before = content(made.folder)
    with monkeypatch.context() as patched:
        patched.setattr(writer.shutil, "disk_usage", lambda _: Usage)
        with pytest.raises(StoreError, match="the store needs"):
            build(plan(made.folder, signals=ANOTHER), Oracle(), collate)
    assert content(made.folder) == before


def test_stopped_right_behind_the_manifest_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(plan(built(tmp_path / "whole", signals=FIRST).folder), Oracle(), collate)
    made = built(tmp_path / "store", signals=FIRST)
    with monkeypatch.context() as patched:
        patched.setattr(writer, "_remove_leftovers", lambda folder, manifest: None)
        build(plan(made.folder), Oracle(), collate)
    assert content(made.folder) != content(tmp_path / "whole")
    build(made, teacher := Oracle(), collate)
    assert teacher.asked == 0
    assert content(made.folder) == content(tmp_path / "whole")


def begun_with_all(folder: Path) -> BuildPlan:
    """A store of ``FIRST``, of whose shards one has all signals already."""
    made = built(folder, signals=FIRST)
    longer = plan(folder).extended_for(Manifest.read(folder))
    assert longer is not None
    writer._open_folder(plan(folder))
    writer._write_shard(longer, 0, Oracle(), collate)
    return made


def test_an_unfinished_one_stays_for_who_asks_for_less_and_gives_way_to_other_signals(tmp_path: Path) -> None:
    made = begun_with_all(tmp_path / "store")
    begun = content(made.folder)
    build(made, Oracle(), collate)
    assert content(made.folder) == begun
    build(plan(made.folder), teacher := Oracle(), collate)
    assert 0 < teacher.asked < 40
    other = begun_with_all(tmp_path / "other")
    build(plan(other.folder, signals=ANOTHER), Oracle(), collate)
    names = {signal["name"] for signal in Manifest.read(other.folder).made_for["signals"]}
    assert names == {request.stored_as().column_name for request in (*FIRST, *ANOTHER)}


@pytest.mark.parametrize("change", ["teacher", "encoding", "damage", "same signal in another encoding"])
def test_it_is_refused_and_left_as_it_is(change: str, tmp_path: Path) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    wanted, message = plan(made.folder, teacher="bb"), "teacher: aa in the store, bb expected"
    if change == "encoding":
        wanted, message = plan(made.folder, signals=LATER, encoding="int8"), "give --encoding float32"
    elif change.startswith("same"):
        wanted, message = plan(made.folder, encoding="int8"), "give --encoding float32"
    elif change == "damage":
        raw = bytearray((made.folder / "shard-00001.arrow").read_bytes())
        raw[len(raw) // 2] ^= 4
        (made.folder / "shard-00001.arrow").write_bytes(raw)
        wanted, message = plan(made.folder), "shard-00001.arrow has another checksum"
    before = content(made.folder)
    with pytest.raises(StoreError, match=f"(?s){message}"):
        build(wanted, Oracle(), collate)
    assert content(made.folder) == before


def test_what_words_a_store_is_of_is_kept_and_compared(tmp_path: Path) -> None:
    """Only stores of signals that replace words name these."""
    made = built(tmp_path / "store", signals=FIRST)
    build(plan(made.folder, signals=ANOTHER, words="cc"), Oracle(), collate)
    build(plan(made.folder, signals=LATER), Oracle(), collate)
    assert Manifest.read(made.folder).made_for["words"] == "cc"
    opened(plan(made.folder, words="cc"))
    opened(plan(made.folder))
    with pytest.raises(StoreError, match="words: cc in the store, dd expected"):
        build(plan(made.folder, words="dd"), Oracle(), collate)


def test_who_reads_the_store_meanwhile_goes_on(tmp_path: Path) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    batches = [Batch.of(collate([made.rows[place]])) for place in range(40)]
    meanwhile, whole = opened(made), opened(built(tmp_path / "whole"))
    meanwhile(batches[0], FIRST)
    build(plan(made.folder), Oracle(), collate)
    assert Manifest.read(made.folder).rows_per_shard != made.rows_per_shard
    for batch in batches:
        found, wanted = meanwhile(batch, FIRST), whole(batch, FIRST)
        assert all(torch.equal(found[request], wanted[request]) for request in FIRST)


def test_a_store_that_is_extended_while_it_is_verified_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    verify, once = reader.damaged, [True]

    def slow(*given: Any, **options: Any) -> dict[str, str]:
        if once.pop() if once else False:
            build(plan(made.folder), Oracle(), collate)
        return verify(*given, **options)

    monkeypatch.setattr(reader, "damaged", slow)
    assert opened(made).manifest.made_for["signals"] != made.signals


def test_a_reader_whose_store_became_another_one_stops(tmp_path: Path) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    before = opened(made)
    for path in made.folder.iterdir():
        path.unlink()
    built(made.folder, teacher="bb")
    longer = built(made.folder, signals=FIRST, teacher="bb")
    (made.folder / "shard-00000.arrow").unlink()
    with pytest.raises(StoreError, match="teacher: bb in the store, aa expected"):
        before(Batch.of(collate([longer.rows[0]])), FIRST)


def test_a_shard_of_an_extended_store_is_built_again(tmp_path: Path) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    build(plan(made.folder), Oracle(), collate)
    whole, manifest = content(made.folder), Manifest.read(made.folder)
    file = made.folder / manifest.shards[2].file
    file.write_bytes(b"")
    assert damaged(made.folder, manifest, verify="fast").keys() == {file.name}
    rebuild(plan(made.folder), [2], Oracle(), collate)
    assert content(made.folder) == whole


def test_the_remedy_of_a_damaged_store_of_several_commands_is_to_build_it_again(tmp_path: Path) -> None:
    made = built(tmp_path / "store", signals=FIRST)
    build(plan(made.folder), Oracle(), collate)
    (made.folder / Manifest.read(made.folder).shards[0].file).write_bytes(b"")
    with pytest.raises(StoreError, match=r"(?s)is damaged.*several commands built it.*signals delete"):
        opened(plan(made.folder))


def test_several_ranks_extend_the_store_as_one(tmp_path: Path) -> None:
    """Rank 1 runs to its end between the first and the second meeting of rank 0."""
    one, two = (built(tmp_path / name, signals=FIRST) for name in ("one", "two"))
    build(plan(one.folder), Oracle(), collate)
    waited = list[int]()

    def gather(failure: str | None) -> list[str | None]:
        waited.append(1)
        if len(waited) == 1:
            build(plan(two.folder), Oracle(), collate, share=ProcessShare(1, 2))
        return [failure, None]

    build(plan(two.folder), first := Oracle(), collate, share=ProcessShare(0, 2, gather))
    assert 0 < first.asked < 40
    assert content(two.folder) == content(one.folder)
    assert isinstance(opened(plan(two.folder)), StoredTeacher)
