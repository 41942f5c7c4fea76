"""A folder next to an output file that keeps predictions, chunk by chunk, until the file is whole.

A command resumes from it after a kill. A chunk is stored with all of its predictions or not at all. A manifest holds
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

from gradistill.commands.output_folder import MARK, FolderKind, locked_output
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
"""The kind of this folder. Its ``FINISHED`` file, which is removed last, identifies it too."""


@dataclass(frozen=True)
class UnfinishedPredictions:
    """The chunks in a locked folder, and the draft of the output. Without a ``purpose`` (for a pipe) no chunk is
    kept."""

    output: Path
    purpose: Mapping[str, Any] | None

    @property
    def folder(self) -> Path:
        """The folder of the chunks, next to the output and named after it."""
        return folder_of(self.output)

    @property
    def draft(self) -> Path:
        """The file into which the output is written until it is whole."""
        return draft_beside(self.folder / self.output.name)

    def get(self, number: int, rows: int) -> Predicted | None:
        """The predictions of a chunk with ``rows`` rows; None if they are missing or damaged."""
        if self.purpose is None:
            return None
        try:
            tensors = load(self._file(number).read_bytes())
            kept = Predicted(tensors["values"], tensors["cut"], tensors["blank"], int(tensors["longest"][0]))
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
        """Rename the draft to the output and remove the folder. After a kill in between, ``was_finished`` is true."""
        with self.draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        done = {"sha256": checksum_of(self.draft), "purpose": digest(self.purpose)}
        write_whole(self.folder / FINISHED, json.dumps(done).encode())
        self.draft.replace(self.output)
        sync_folder(self.output.parent)
        self.remove()

    def was_finished(self) -> bool:
        """Whether an earlier process wrote this output and was killed before the clean-up. Always False for a pipe."""
        if self.purpose is None:
            return False
        try:
            done = read_object(self.folder / FINISHED)
            whole = self.output.is_file() and checksum_of(self.output) == done["sha256"]
            return whole and done["purpose"] == digest(self.purpose)
        except (OSError, ValueError, KeyError):
            return False

    def remove(self) -> None:
        """Remove the folder; the ``FINISHED`` file is removed last."""
        for name in (_CHUNK, MANIFEST, MARK, FINISHED):
            for file in self.folder.glob(name):
                file.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def begin(self) -> None:
        """Keep an earlier process's chunks of the same purpose. Other chunks are removed, and this is logged."""
        try:
            before = read_object(self.folder / MANIFEST)
        except (OSError, ValueError):
            before = None
        other = [path for path, _, _ in differences(before, self.purpose)]
        chunks = sorted(self.folder.glob(_CHUNK))
        if other and chunks:
            changed = ", ".join(other) if before else "the manifest is missing"
            logger.info(
                f"the predictions in {self.folder} are computed again, because something changed: {changed}"
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
    """Lock the folder for this process. Raises RecipeError if another process works on the same output.

    ``purpose`` holds everything that the predictions depend on, as JSON.
    """
    work = UnfinishedPredictions(output, purpose)
    with locked_output(work.folder, KIND):
        try:
            yield work
        except GradistillError:
            if not any(work.folder.glob(_CHUNK)):
                work.remove()
            raise
        finally:
            work.draft.unlink(missing_ok=True)
