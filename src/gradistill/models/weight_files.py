"""Checks of the files in a model's folder before they are opened: no pickle, no pipe, no weights from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from transformers.utils.hub import cached_file

from gradistill.data.file_readers import not_a_file
from gradistill.errors import ModelError
from gradistill.models.adapters import ADAPTER

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def refuse_pipes(folder: Path) -> None:
    """Raise ModelError for anything but files and folders: reading a pipe would wait for a writer."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_dir() and (fault := not_a_file(path)):
            raise ModelError(f"{path}: {fault}", expected="files only in a model folder", remedy="remove it")


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError for a folder without safetensors."""
    if not folder.is_dir() or any((folder / name).is_file() for name in _WEIGHTS):
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"})
    raise ModelError(
        f"{folder} holds no model.safetensors" + (f", only {', '.join(pickles)}" if pickles else ""),
        expected="weights as safetensors; a pickle can run code and is never opened",
        remedy="save the model again with save_pretrained, which writes safetensors",
    )


def folder_of(place: str) -> Path:
    """The folder with a model's small files; for a hub id the snapshot in transformers' cache."""
    if Path(place).is_dir():
        return Path(place)
    config_file = str(cached_file(place, "config.json"))
    for name in (_WEIGHTS[1], ADAPTER):
        cached_file(
            place,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return Path(config_file).parent


def refuse_strange_weights(name: str | Path, folder: Path, explicit: object) -> None:
    """Raise ModelError for weights that ``from_pretrained`` would read from elsewhere, or from a pickle.

    An index of shards, and ``transformers_weights`` in config.json, name files. With peft installed, an adapter in the
    folder is loaded too, even from a pickle.
    """
    if (folder / ADAPTER).exists():
        raise _adapter_beside(name)
    named = {"config.json": [explicit]} if explicit is not None else {}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named[index.name] = list(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"{index} is damaged: {error}",
                expected="an index of shards as save_pretrained writes it",
                remedy="save the model again with save_pretrained",
            ) from error
    for file, shards in named.items():
        for shard in dict.fromkeys(map(str, shards)):
            if not (shard.endswith(".safetensors") and _lies_in(folder, shard)):
                raise ModelError(
                    f"{folder / file} names {shard!r} as weights",
                    expected="files of the model's own folder that end in .safetensors; a pickle can run code",
                    remedy="save the model again with save_pretrained, which writes safetensors",
                )


def _adapter_beside(name: str | Path) -> ModelError:
    """The error for an adapter in the folder of a model, or on the hub."""
    return ModelError(
        f"{name} holds an adapter ({ADAPTER})",
        expected="a whole model, or a folder of this machine with an adapter alone",
        remedy="remove one of the two from it; download one of the hub first: hf download ID --local-dir FOLDER",
    )


def _lies_in(folder: Path, name: str) -> bool:
    """Whether a file is in a folder after its links are followed; the hub's cache links to its ``blobs``."""
    whole = folder.resolve()
    roots = [whole, *([whole.parents[1] / "blobs"] if whole.parent.name == "snapshots" else [])]
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and any((folder / name).resolve().is_relative_to(root) for root in roots)
