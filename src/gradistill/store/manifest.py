"""The manifest of a store: what it holds and was made for, and a checksum of every shard and of itself."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradistill.errors import StoreError, UnusableStoreError
from gradistill.io import differences, digest, write_whole

MANIFEST = "manifest.json"
SHARD = re.compile(r"shard-(\d{1,12})\.arrow")

EXTENDED = "extended_by"
"""Of what a store is about: the methods whose signals were added to it, one after the other."""


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.arrow"


def shard_number(name: str) -> int:
    """Of a file that is named as a shard is."""
    found = SHARD.fullmatch(name)
    assert found is not None
    return int(found[1])


@dataclass(frozen=True)
class Shard:
    """One file of whole examples."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """``made_for`` holds the fingerprints; ``about`` what people want to know (names, counts)."""

    made_for: dict[str, Any]
    about: dict[str, Any]
    rows: int
    tokens: int
    rows_per_shard: int
    shards: tuple[Shard, ...]

    def write(self, folder: Path) -> None:
        write_whole(folder / MANIFEST, _text(asdict(self)).encode())

    def check(self) -> None:
        """Raise ValueError for numbers that no store can have: a checksum that fits can be anybody's."""
        counts = {"rows": self.rows, "tokens": self.tokens, **{s.file: s.rows for s in self.shards}}
        counts |= {f"bytes of {shard.file}": shard.bytes for shard in self.shards}
        for name, count in counts.items():
            if type(count) is not int or count < 0:
                raise ValueError(f"its {name} is {count!r}, which is no count")
        if type(self.rows_per_shard) is not int or self.rows_per_shard < 1:
            raise ValueError(f"its rows_per_shard is {self.rows_per_shard!r}, which must be 1 or more")
        starts = range(0, self.rows, self.rows_per_shard)
        if [s.rows for s in self.shards] != [min(self.rows_per_shard, self.rows - start) for start in starts]:
            raise ValueError(f"its {len(self.shards)} shards do not add up to {self.rows} rows")
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("it names a shard twice")
        for signal in self.made_for["signals"]:
            numbers = signal["shape"]
            known = signal["per"] in ("token", "example") and signal["encoding"] in (
                "float32",
                "float16",
                "int8",
            )
            if not isinstance(signal["name"], str):
                raise ValueError(f"the name of a signal is {signal['name']!r}")
            if not known or not numbers or any(type(n) is not int or n < 1 for n in numbers):
                raise ValueError(f"its signal {signal['name']!r} has no shape that can be read")
        if not isinstance(self.about, dict):
            raise ValueError(f"its about is {self.about!r}")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises StoreError for a manifest that is not there, is not whole, or is of another format."""
        file = folder / MANIFEST
        try:
            text = file.read_bytes().decode()
            content = json.loads(text)
            del content["checksum"]
            if text != _text(content):
                raise ValueError("its checksum does not fit its content")
            shards = tuple(Shard(**shard) for shard in content.pop("shards"))
            if strange := [shard.file for shard in shards if not SHARD.fullmatch(shard.file)]:
                raise ValueError(f"it names {strange[0]!r} as a shard")  # no path leads out of the folder
            found = cls(**content, shards=shards)
            found.check()
            return found
        except FileNotFoundError:
            raise StoreError(
                f"{folder} holds no {MANIFEST}",
                expected="a finished store of teacher signals",
                remedy="build it: gradistill signals",
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableStoreError(
                f"{file} is damaged: {error}",
                expected="a manifest as it was written",
                remedy=f"delete {folder} and build the store again",
            ) from error


def _text(content: dict[str, Any]) -> str:
    """The one form in which a manifest is written."""
    return json.dumps({**content, "checksum": digest(content)}, indent=1) + "\n"


def refuse_other(folder: Path, expected: dict[str, Any], found: dict[str, Any], *, remedy: str) -> None:
    """Raise StoreError where a store was made for something else, with what differs."""
    apart = [_difference(*each) for each in differences(_by_name(found), _by_name(expected))]
    if apart:
        raise UnusableStoreError(
            f"{folder} holds teacher signals for something else:\n" + "\n".join(f"  - {d}" for d in apart),
            expected="a store made for this teacher, data and recipe",
            remedy=remedy,
        )


def is_for_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two stores were made for the same, in whatever order their signals are."""
    return not list(differences(_by_name(one), _by_name(other)))


def without_other_signals(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What a store was made for, without the signals that nobody wants here, and the words that these alone are of; as
    it is, where wanted ones lack."""
    stored, signals = found.get("signals"), wanted.get("signals")
    if isinstance(stored, list) and isinstance(signals, list) and all(signal in stored for signal in signals):
        needed = {name: part for name, part in found.items() if name != "words" or name in wanted}
        return {**needed, "signals": signals}
    return found


def _difference(path: str, there: Any, wanted: Any) -> str:
    if there is None:
        return f"{path}: missing there"
    if wanted is None:
        return f"{path}: not wanted"
    return f"{path}: {_short(there)} there, {_short(wanted)} wanted"


def _by_name(made_for: dict[str, Any]) -> dict[str, Any]:
    """With the signals by their names: each that differs has a line of its own."""
    signals = made_for.get("signals")
    if not isinstance(signals, list) or not all(isinstance(s, dict) and "name" in s for s in signals):
        return made_for
    return {**made_for, "signals": {signal["name"]: signal for signal in signals}}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}… ({digest(value)[:8]})"
