"""The folder beside an output file in which predictions are kept, chunk by chunk, until the file is whole.

It is what a killed process goes on from. A chunk is there with all of its predictions or not at all; a manifest names
everything that they depend on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gradistill.commands.output_folder import MARK, FolderKind, held
from gradistill.commands.text_predictor import Predicted
from gradistill.errors import GradistillError
from gradistill.io import (
    checksum_of,
    differences,
    digest,
    draft_beside,
    read_object,
    sync_folder,
    write_whole,
)

logger = logging.getLogger(__name__)

MANIFEST, FINISHED = "predictions.json", "finished.json"
_CHUNK = "chunk-*.safetensors"
KIND = FolderKind("unfinished prediction", unmarked=lambda folder: (folder / FINISHED).is_file())
"""Its ``FINISHED`` file, the last one that is removed, marks it as well."""


@dataclass(frozen=True)
class UnfinishedPredictions:
    """The chunks in a locked folder, and the draft of the output. Without a ``purpose``, as for a pipe, none is
    kept."""

    output: Path
    purpose: Mapping[str, Any] | None

    @property
    def folder(self) -> Path:
        """Beside the output, under its name."""
        return folder_of(self.output)

    @property
    def draft(self) -> Path:
        """Where the output is written until it is whole."""
        return draft_beside(self.folder / self.output.name)

    def get(self, number: int, rows: int) -> Predicted | None:
        """The predictions of a chunk of so many rows; None where they are not there, or damaged."""
        if self.purpose is None:
            return None
        try:
            found = load(self._file(number).read_bytes())
            kept = Predicted(found["values"], found["cut"], found["blank"], int(found["longest"][0]))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.info(f"{self._file(number)} is damaged and computed again: {error}")
            return None
        return kept if len(kept.values) == len(kept.cut) == len(kept.blank) == rows else None

    def put(self, number: int, found: Predicted) -> None:
        """Keep the predictions of a chunk."""
        if self.purpose is not None:
            tensors = {
                name: np.ascontiguousarray(getattr(found, name)) for name in ("values", "cut", "blank")
            }
            write_whole(self._file(number), save({**tensors, "longest": np.array([found.longest])}))

    def finish(self) -> None:
        """Put the draft in the output's place and remove the folder. ``was_finished`` is true after a kill in
        between."""
        with self.draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        done = {"sha256": checksum_of(self.draft), "purpose": digest(self.purpose)}
        write_whole(self.folder / FINISHED, json.dumps(done).encode())
        self.draft.replace(self.output)
        sync_folder(self.output.parent)
        self.remove()

    def was_finished(self) -> bool:
        """Whether an earlier process put this very output in its place, and was killed before it had removed all. Of
        rows that come from a pipe nobody knows."""
        if self.purpose is None:
            return False
        try:
            done = read_object(self.folder / FINISHED)
            whole = self.output.is_file() and checksum_of(self.output) == done["sha256"]
            return whole and done["purpose"] == digest(self.purpose)
        except (OSError, ValueError, KeyError):
            return False

    def remove(self) -> None:
        """Remove the folder; the file that marks it as finished comes last."""
        for name in (_CHUNK, MANIFEST, MARK, FINISHED):
            for file in self.folder.glob(name):
                file.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def begin(self) -> None:
        """Go on with an earlier process's chunks of the same purpose; others are removed, with a line."""
        try:
            before = read_object(self.folder / MANIFEST)
        except (OSError, ValueError):
            before = None
        other = [path for path, _, _ in differences(before, self.purpose)]
        chunks = sorted(self.folder.glob(_CHUNK))
        if other and chunks:
            changed = ", ".join(other) if before else "the manifest is missing"
            logger.info(
                f"the predictions that {self.folder} holds are made anew, as something changed: {changed}"
            )
        if other:
            for file in [*chunks, self.folder / FINISHED]:
                file.unlink(missing_ok=True)
        if self.purpose is not None and other:
            write_whole(self.folder / MANIFEST, json.dumps(self.purpose).encode())

    def _file(self, number: int) -> Path:
        return self.folder / _CHUNK.replace("*", f"{number:06d}")


def folder_of(output: Path) -> Path:
    """The folder of an output's unfinished predictions."""
    return output.with_name(f"{output.name}.unfinished")


@contextmanager
def unfinished_predictions(
    output: Path, purpose: Mapping[str, Any] | None
) -> Iterator[UnfinishedPredictions]:
    """Hold the folder for this process. Raises RecipeError where another process is at work on the same output.

    ``purpose`` is everything that the predictions depend on, as JSON.
    """
    work = UnfinishedPredictions(output, purpose)
    with held(work.folder, KIND):
        try:
            yield work
        except GradistillError:
            if not any(work.folder.glob(_CHUNK)):
                work.remove()
            raise
        finally:
            work.draft.unlink(missing_ok=True)
