"""Models as users give them: a folder, a hub id, or a loaded model with its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from gradistill.errors import ModelError

ModelSource = str | os.PathLike[str] | tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""A folder, a hub id or ``minilm-l6``; or a pair of a loaded model and its tokenizer."""

NAME_OR_PATH = "_name_or_path"
"""The attribute of a configuration in which transformers records the path or id that it was loaded from."""


def model_name(source: ModelSource) -> str:
    """The name of a model in messages and run folders: its path or id; for a loaded model, its recorded origin.

    Raises ModelError for any other type.
    """
    if not isinstance(source, tuple):
        return _path(source)
    model, _ = _pair(source)
    origin = str(getattr(model.config, NAME_OR_PATH, "") or "")
    return Path(origin).name or type(model).__name__


def model_folder(source: ModelSource) -> str:
    """The folder or hub id of a model; for a loaded model the one that transformers recorded, or an empty string."""
    if not isinstance(source, tuple):
        return _path(source)
    return str(getattr(_pair(source)[0].config, NAME_OR_PATH, "") or "")


def model_paths(*sources: Any) -> tuple[str, ...]:
    """The sources that are paths or ids. Raises ModelError for a source that is no model."""
    named = [source for source in sources if source is not None and not isinstance(source, tuple)]
    return tuple(map(_path, named))


def given_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a loaded model; None for a path or id."""
    return _pair(source)[1] if isinstance(source, tuple) else None


@contextmanager
def on_disk(source: ModelSource) -> Iterator[str]:
    """A path or hub id of the model. A loaded one is saved into a folder that is removed afterwards.

    So it is checked as any other model, and the caller's model is not changed: its weights, its device, its head.
    """
    if not isinstance(source, tuple):
        yield _path(source)
        return
    model, tokenizer = _pair(source)
    with TemporaryDirectory(prefix="gradistill-") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def _path(source: Any) -> str:
    if isinstance(source, str | os.PathLike) and isinstance(text := os.fspath(source), str):
        return text
    what = f"a model is given as {_article(source)}"
    if isinstance(source, PreTrainedModel):
        what += ", without its tokenizer"
    raise ModelError(
        what,
        expected="a folder, a hub id, minilm-l6, or a pair (model, tokenizer)",
        remedy="pass the pair of the loaded model and its tokenizer, or a path",
    )


def _pair(source: tuple[Any, ...]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    kinds = (PreTrainedModel, PreTrainedTokenizerBase)
    if len(source) != 2 or not all(map(isinstance, source, kinds)):
        raise ModelError(
            f"a model is given as a tuple of {', '.join(type(part).__name__ for part in source) or 'nothing'}",
            expected="a pair (model, tokenizer): a PreTrainedModel and its tokenizer, in this order",
            remedy="pass (model, tokenizer), or a path",
        )
    return source  # pyright: ignore[reportReturnType]


def _article(source: Any) -> str:
    name = type(source).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
