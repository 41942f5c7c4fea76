"""Tokens and passwords in a recipe: they are used, but never written or printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gradistill.errors import RecipeError

REDACTED = "<redacted>"

_NAME = re.compile(
    r"(?:^|[_.-])(?:token|pwd|auth|bearer|key)$|[a-z](?:Token|Key)$|"
    r"(?i:password|passwd|passphrase|secret|credential|api_?key|access_?key|private_?key)"
)
_TOKENIZERS = re.compile(r"(?:pad|eos|bos|unk|cls|sep|mask|special|image)_token")
_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|api_org_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|"
    r"sk-[\w-]{16,}|xox[abprs]-[\w-]{8,}|AKIA[0-9A-Z]{12,})\b|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redacted(content: Any) -> Any:
    """The content with every secret replaced: values under a secret's name, and texts that look like a secret."""
    if isinstance(content, Mapping):
        return {
            key: REDACTED if _is_secret(key, value) else redacted(value) for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [redacted(value) for value in content]
    return _VALUE.sub(REDACTED, content) if isinstance(content, str) else content


def without_secrets(change: str) -> str:
    """A change ``key.key=value`` without its secret, for printing."""
    path, equals, value = change.partition("=")
    words = re.findall(r"[\w-]+", change if re.search(r"[:{]", value) else path)
    if equals and any(_is_secret(word, value) for word in words):
        return f"{path}{equals}{REDACTED}"
    return _VALUE.sub(REDACTED, change)


def refuse_redacted(content: Any, where: str) -> None:
    """Raise RecipeError for a secret that was left out when the recipe was written."""
    for path in _redacted_in(content, where):
        raise RecipeError(
            f"{path} is {REDACTED}: the run that wrote this recipe left the secret out",
            expected="the value itself, or no such key",
            remedy=f"give it again: --set {path}=…, or remove the key and set HF_TOKEN in the environment",
        )


def _is_secret(key: Any, value: Any) -> bool:
    named = isinstance(key, str) and _NAME.search(key) and not _TOKENIZERS.fullmatch(key)
    return (
        bool(named) and isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    )


def _redacted_in(content: Any, path: str) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _redacted_in(value, f"{path}.{key}")
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _redacted_in(value, path)
    elif isinstance(content, str) and REDACTED in content:
        yield path
