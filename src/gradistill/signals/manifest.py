"""The manifest of a store: what it holds and was made for, and a checksum of every shard and of itself."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradistill.errors import StoreError
from gradistill.signals.files import write_whole
from gradistill.signals.fingerprint import digest

MANIFEST = "manifest.json"
SHARD = re.compile(r"shard-\d+\.arrow")


@dataclass(frozen=True)
class Shard:
    """One file of whole examples."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """``made_for`` is what the fingerprints say; ``about`` what people want to know (names, counts)."""

    made_for: dict[str, Any]
    about: dict[str, Any]
    rows: int
    tokens: int
    rows_per_shard: int
    shards: tuple[Shard, ...]

    def write(self, folder: Path) -> None:
        write_whole(folder / MANIFEST, _text(asdict(self)).encode())

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
            return cls(**content, shards=shards)
        except FileNotFoundError:
            raise StoreError(
                f"{folder} holds no {MANIFEST}",
                expected="a finished store of teacher signals",
                remedy="build it: gradistill signals",
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{file} is damaged: {error}",
                expected="a manifest as it was written",
                remedy=f"delete {folder} and build the store again",
            ) from error


def _text(content: dict[str, Any]) -> str:
    """The one form in which a manifest is written."""
    return json.dumps({**content, "checksum": digest(content)}, indent=1) + "\n"


def refuse_other(folder: Path, expected: dict[str, Any], found: dict[str, Any], *, remedy: str) -> None:
    """Raise StoreError where a store was made for something else, saying what differs."""
    if apart := _differences(expected, found):
        raise StoreError(
            f"{folder} holds teacher signals for something else:\n" + "\n".join(f"  - {d}" for d in apart),
            expected="a store made for this teacher, data and recipe",
            remedy=remedy,
        )


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What two fingerprints disagree on, by name."""
    return [
        f"{key}: {_short(found.get(key))} there, {_short(expected.get(key))} wanted"
        for key in dict.fromkeys([*expected, *found])
        if expected.get(key) != found.get(key)
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:24]}… ({digest(value)[:8]})"
