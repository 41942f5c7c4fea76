"""Send a finished model folder to the Hugging Face hub."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from gradistill.commands.run_folder import CARD, RECIPE
from gradistill.errors import ModelError, RecipeError, first_line
from gradistill.models.loading import locate
from gradistill.recipe.recipe_files import read_keys
from gradistill.report.model_card import public_recipe, yaml_text

SENT = (
    "README.md", "config.json", "adapter_config.json", "adapter_model.safetensors", "model.safetensors",
    "model-*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "spiece.model", "tokenizer.model", "added_tokens.json", "chat_template.jinja", "recipe.yaml", "export.json",
    "onnx/*.onnx", "onnx/*.onnx_data", "onnx/*.onnx.data",
)  # fmt: skip
"""The files of a model folder that are sent. Others are not: rows of an audit, checkpoints, ``metrics.json`` with its
paths."""
LICENSES = (
    "apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "gpl-3.0", "lgpl-3.0",
    "agpl-3.0", "mpl-2.0", "other",
)  # fmt: skip
"""Some of the license ids of the hub."""

_FRONT = re.compile(r"---\n(.*?)\n---(?:\n|\Z)", re.DOTALL)


def push(
    folder: str | Path, repo: str, *, private: bool = True, license: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Send the model, tokenizer, recipe and card of a folder to the hub, in one commit. Local paths in the recipe are
    reduced to their last part, as in the card.

    Parameters:
        ``folder``: a finished run, an export, or another model folder with a card (README.md).
        ``repo``: ``owner/name``; it is created if it does not exist.
        ``private``: whether a new repository is private.
        ``license``: a license id of the hub, such as ``apache-2.0``; it is written into the card that is sent.
        ``dry_run``: send nothing, only return what would be sent.

    Returns ``url`` (None in a dry run), ``files`` and ``bytes``. Raises ModelError for a folder without a finished
    model or a card, and if the hub refuses. Raises RecipeError for an invalid name of a repository or license.

    Example: ``push("runs/student", "me/student-of-bert", license="apache-2.0")``
    """
    folder = Path(folder)
    _check_name(repo)
    _check_license(license)
    files = _files(folder)
    result: dict[str, Any] = {
        "url": None,
        "files": [file.relative_to(folder).as_posix() for file in files],
        "bytes": sum(file.stat().st_size for file in files),
    }
    written = {CARD: _with_license((folder / CARD).read_text(encoding="utf-8"), license)}
    if (recipe := folder / RECIPE).is_file():  # local paths in it are not sent
        written[RECIPE] = public_recipe(read_keys(recipe, "recipe", "keys"))
    if dry_run:
        return result
    api = HfApi(library_name="gradistill")
    try:
        result["url"] = str(api.create_repo(repo, private=private, exist_ok=True))
        operations = [
            CommitOperationAdd(name, written[name].encode() if name in written else folder / name)
            for name in result["files"]
        ]
        api.create_commit(repo, operations, commit_message="Add a model made with gradistill")
    except Exception as error:  # any library that the hub's client uses
        raise ModelError(
            f"{folder} could not be sent to {repo}: {first_line(error)}",
            expected="the network, and a repository that you may write",
            remedy="check the connection, log in by `hf auth login` or set HF_TOKEN, and give the same command again",
        ) from error
    return result


def _check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
        known = repo.count("/") == 1
    except HFValidationError:
        known = False
    if not known:
        raise RecipeError(
            f"{repo!r} is no name that the hub takes.",
            expected="owner/name, of letters, digits, -, _ and .",
            remedy="write it so: gradistill push runs/student me/student",
        )


def _check_license(license: str | None) -> None:
    """Raise RecipeError for an invalid license id. The hub would refuse the card only after all else has been sent."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        close = get_close_matches("-".join(license.lower().split()), LICENSES, n=1)
        raise RecipeError(
            f"{license!r} is no id of a license.",
            expected=f"lower-case letters, digits, dots and dashes, such as {', '.join(LICENSES[:4])}",
            remedy=f"write it so: --license {close[0] if close else LICENSES[0]}",
        )


def _files(folder: Path) -> list[Path]:
    """The files of a folder that are sent. Raises ModelError for a folder without a finished model or a card."""
    if not folder.is_dir():
        raise ModelError(
            f"there is no folder {folder}", expected="a run folder, or an export", remedy="check the path"
        )
    exported = (folder / "onnx").is_dir() and (folder / "config.json").is_file()
    if not exported:
        locate(str(folder))  # raises for a folder without a model, or with an unfinished run
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    sent = [
        file for file in files if any(fnmatch(file.relative_to(folder).as_posix(), name) for name in SENT)
    ]
    if folder / CARD not in sent:
        raise ModelError(
            f"{folder} has no {CARD}",
            expected="a folder with a model card: a run folder, or an export",
            remedy=f"write {CARD}, or distil into a new folder",
        )
    if not any(file.suffix in (".safetensors", ".onnx") for file in sent):
        raise ModelError(
            f"none of the files of {folder} that would be sent holds weights",
            expected="safetensors or ONNX files",
            remedy="save the model as transformers, peft or gradistill export do",
        )
    return sent


def _with_license(card: str, license: str | None) -> str:
    """The card with the license in its front matter, which is added if there is none."""
    if license is None:
        return card
    front = _FRONT.match(card)
    matter = yaml.safe_load(front[1]) if front else None
    rest = card[front.end() :] if front and isinstance(matter, dict) else card
    known = matter if isinstance(matter, dict) else {}
    return f"---\n{yaml_text({**known, 'license': license})}\n---\n{rest}"
