"""The manifest of a store: its content and fingerprint, and checksums of every shard and of the manifest itself."""

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
"""Key of ``Manifest.about`` with the methods whose signals were added to the store, in order."""


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.arrow"


def shard_number(name: str) -> int:
    """The number of a shard from its file name."""
    match = SHARD.fullmatch(name)
    assert match is not None
    return int(match[1])


@dataclass(frozen=True)
class Shard:
    """One file with the signals of whole examples."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``. ``made_for`` holds the fingerprints, ``about`` names and counts for display."""

    made_for: dict[str, Any]
    about: dict[str, Any]
    rows: int
    tokens: int
    rows_per_shard: int
    shards: tuple[Shard, ...]

    def write(self, folder: Path) -> None:
        write_whole(folder / MANIFEST, _text(asdict(self)).encode())

    def check(self) -> None:
        """Raise ValueError for values that no store can have: a correct checksum does not prove a correct manifest."""
        counts = {"rows": self.rows, "tokens": self.tokens, **{s.file: s.rows for s in self.shards}}
        counts |= {f"bytes of {shard.file}": shard.bytes for shard in self.shards}
        for name, count in counts.items():
            if type(count) is not int or count < 0:
                raise ValueError(f"its {name} is {count!r}, which is not a count")
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
        """Read a store's manifest. Raises StoreError if it is missing, damaged, or of another format."""
        file = folder / MANIFEST
        try:
            text = file.read_bytes().decode()
            content = json.loads(text)
            del content["checksum"]
            if text != _text(content):
                raise ValueError("its checksum does not match its content")
            shards = tuple(Shard(**shard) for shard in content.pop("shards"))
            if strange := [shard.file for shard in shards if not SHARD.fullmatch(shard.file)]:
                raise ValueError(
                    f"it names {strange[0]!r} as a shard"
                )  # so no path can lead out of the folder
            manifest = cls(**content, shards=shards)
            manifest.check()
            return manifest
        except FileNotFoundError:
            raise StoreError(
                f"{folder} holds no {MANIFEST}",
                expected="a finished store of teacher signals",
                remedy="build it: gradistill signals",
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableStoreError(
                f"{file} is damaged: {error}",
                expected="an unchanged manifest",
                remedy=f"delete {folder} and build the store again",
            ) from error


def _text(content: dict[str, Any]) -> str:
    """The text of a manifest, in the only form in which it is written."""
    return json.dumps({**content, "checksum": digest(content)}, indent=1) + "\n"


def refuse_other(folder: Path, expected: dict[str, Any], found: dict[str, Any], *, remedy: str) -> None:
    """Raise StoreError if a store was made for something else, with all differences."""
    lines = [_difference(*each) for each in differences(_by_name(found), _by_name(expected))]
    if lines:
        raise UnusableStoreError(
            f"{folder} holds teacher signals for something else:\n" + "\n".join(f"  - {d}" for d in lines),
            expected="a store made for this teacher, data and recipe",
            remedy=remedy,
        )


def is_for_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two stores were made for the same things, regardless of the order of their signals."""
    return not list(differences(_by_name(one), _by_name(other)))


def without_other_signals(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """``made_for`` of a store, reduced to the wanted signals. Unchanged if a wanted signal is missing.

    The hash of the words is removed too, if no wanted signal depends on words.
    """
    stored, signals = found.get("signals"), wanted.get("signals")
    if isinstance(stored, list) and isinstance(signals, list) and all(signal in stored for signal in signals):
        needed = {name: part for name, part in found.items() if name != "words" or name in wanted}
        return {**needed, "signals": signals}
    return found


def _difference(path: str, there: Any, wanted: Any) -> str:
    if there is None:
        return f"{path}: missing in the store"
    if wanted is None:
        return f"{path}: not expected"
    return f"{path}: {_short(there)} in the store, {_short(wanted)} expected"


def _by_name(made_for: dict[str, Any]) -> dict[str, Any]:
    """``made_for`` with the signals by name, so that each difference is reported separately."""
    signals = made_for.get("signals")
    if not isinstance(signals, list) or not all(isinstance(s, dict) and "name" in s for s in signals):
        return made_for
    return {**made_for, "signals": {signal["name"]: signal for signal in signals}}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}… ({digest(value)[:8]})"
