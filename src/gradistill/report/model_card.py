"""The model card of a run folder: README.md from ``metrics.json`` and the resolved recipe.

The card is published, so it names no local folder: a path is reduced to its last part. Text from outside is escaped,
and tokens and passwords are left out. Text that the template prints without escaping is made here, as a ``Ready``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from numbers import Integral, Real
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from gradistill.auditing.figure_meanings import meanings_of
from gradistill.auditing.trained_figures import title_with_dagger, trained_note
from gradistill.data.data_choice import LabelKind
from gradistill.data.tasks import metric_title
from gradistill.errors import GradistillError
from gradistill.printing import printable
from gradistill.recipe.checkpoint_choice import keeps_best
from gradistill.recipe.schema import recipe_part
from gradistill.recipe.secrets import redacted
from gradistill.report.run_summary import role_of

REQUIRED = ("task", "method", "student")
NO_VALUE = "–"
UNNAMED = "(local folder)"

_WHOLE_PATH = re.compile(r"(?:file://|~|\.{1,2}[\\/]|[A-Za-z]:[\\/]|/|\\\\)", re.IGNORECASE)
_PATH_INSIDE = re.compile(
    r"(?<![\w/\\.~-])(?:file://)?(?:~[^\s\\/]*|[A-Za-z]:)?[\\/](?![\\/])[^\s\"'`|,;()<>]*[\\/][^\s\"'`|,;()<>]*",
    re.IGNORECASE,
)
_HOME = re.compile(
    r"(?:file://)?(?:~[^\\/]*|(?:[A-Za-z]:)?[\\/]+(?:home|users)[\\/]+[^\\/]+|[\\/]root)[\\/]*", re.I
)
_HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
_ON_THE_HUB: Mapping[str, str] = {"macro_f1": "f1", "spearman": "spearmanr", "pearson": "pearsonr"}
"""The hub's names of metrics that have another name here."""
_MARKDOWN = re.compile(r"([\\`*\[\]<>|&~$#!]|(?<![^\W_])_|_(?![^\W_]))")


class Ready(str):
    """Text that was made here; the template prints it without escaping."""


TOKEN_TASK = "token-classification"


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown with the hub's YAML front matter.

    ``facts`` has the keys of ``metrics.json`` (``task``, ``method`` and ``student`` are required), and may have
    ``recipe`` (a mapping) and ``license`` (an id of the hub). Missing parts and ``None`` are left out: a fine-tuning
    has no teacher, a regression no label loyalty. Raises GradistillError if a required key is missing.
    """
    missing = [key for key in REQUIRED if facts.get(key) is None]
    if missing:
        raise GradistillError(
            f"The facts for the model card lack {', '.join(missing)}.",
            expected=f"at least {', '.join(REQUIRED)}",
        )
    student, teacher = facts["student"], facts.get("teacher")
    loyalty = {k: v for k, v in (facts.get("loyalty") or {}).items() if isinstance(v, Mapping)}
    recipe = public_recipe(facts["recipe"]) if facts.get("recipe") else ""
    kind = label_kind(facts)
    meanings = meanings_of(kind)
    text = markdown_template("model_card.md.j2").render(
        front_matter=Ready(_front_matter(facts)),
        title=student.get("name") or "Text classifier",
        task=facts["task"],
        method=facts["method"],
        seed=facts.get("seed"),
        teacher=_model("teacher", teacher) if teacher else None,
        template=(facts.get("teacher_source") or {}).get("template"),
        columns=[_model(r, m) for r, m in ((role_of(facts), student), ("teacher", teacher)) if m],
        role=role_of(facts),
        metrics=_metric_rows(facts, "eval"),
        selects=keeps_best(facts.get("recipe")),
        thresholds=bool(facts.get("thresholds")),
        tested=_metric_rows(facts, "test"),
        warnings=list(facts.get("warnings") or ()),
        overlap=overlap_sentence(facts.get("overlap")),
        data=_data(facts.get("data"), facts.get("texts"), recipe_part(facts.get("recipe"), "training")),
        loyalty=[_loyalty_row(name, part, meanings.get(name)) for name, part in loyalty.items()],
        published=kind == "classes" and "label" in loyalty,
        of_words=kind == "tokens",
        saliency=_saliency_note(loyalty.get("saliency")),
        trained=trained_note(loyalty.values()),
        floored=any(part.get("floor") is not None for part in loyalty.values()),
        recipe=Ready(recipe),
        fence=Ready(_fence_for(recipe)),
        timing=_named(facts.get("timing")),
        versions=_named(facts.get("versions")),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def public_recipe(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML for publication, without secrets, and with local paths reduced to their last part."""
    return yaml_text(_without_paths(redacted(recipe)))


def public_name(text: str) -> str:
    """The text with every local path reduced to its last part; hub ids (``owner/name``) and URLs stay.

    A home folder itself, whose last part is a user's name, becomes ``(local folder)``.
    """
    text = text.strip()
    deep = len(re.findall(r"[\\/]", text)) > 1  # a hub id has one slash
    if _WHOLE_PATH.match(text) or (deep and "://" not in text and " " not in text):
        return _last_part(text)
    return _PATH_INSIDE.sub(lambda found: _last_part(found.group()), text)


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..", "~")]
    return UNNAMED if _HOME.fullmatch(path.rstrip("\\/.")) or not parts else parts[-1]


@cache
def markdown_template(name: str, **filters: Callable[..., str]) -> Template:
    """A Markdown template; ``filters`` are functions that it calls by name."""
    environment = template_environment(markdown_text, keep_trailing_newline=True)
    environment.filters.update(filters)
    return environment.get_template(name)


def template_environment(finalize: Callable[[Any], Any], **options: Any) -> Environment:
    """The Jinja environment of this package's templates; ``finalize`` turns each value into text.

    It is strict: an unknown name in a template is an error, not a gap in a published page.
    """
    return Environment(
        loader=PackageLoader("gradistill.report"),
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def markdown_text(value: Any) -> str:
    """A value as one line of escaped text, for a line or a table cell of Markdown."""
    if isinstance(value, Ready):
        return value
    if value is None:
        return NO_VALUE
    if isinstance(value, Real) and not isinstance(value, bool):
        return _number(value)
    line = printable(" ".join(public_name(str(value)).split()))
    return _MARKDOWN.sub(r"\\\1", line)


def _number(value: Real) -> str:
    if isinstance(value, Integral):
        return f"{int(value):,}"
    return f"{float(value):z.3f}" if isfinite(value) else NO_VALUE


def _model(role: str, model: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role} | {key: model.get(key) for key in ("name", "layers", "hidden", "parameters")}


def _metric_rows(facts: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """One row for each metric, with the values of the student, the teacher and the constant prediction."""
    owners = {"student": split, "teacher": f"teacher_{split}", "constant": f"constant_{split}"}
    scores = {owner: facts.get(key) or {} for owner, key in owners.items()}
    return [
        {"name": metric_title(name, facts.get("positive"))}
        | {owner: of.get(name) for owner, of in scores.items()}
        for name in dict.fromkeys([*scores["student"], *scores["teacher"]])
    ]


def overlap_sentence(found: Mapping[str, Any] | None) -> str | None:
    """A sentence on the rows of the split that are training rows; None if there are none."""
    if not found or not found.get("normalised"):
        return None
    return (
        f"{found['normalised']} of its {found['rows']} rows are training rows too "
        f"({found['exact']} of them letter for letter), so figures on them are too good"
    )


def audit_warnings(audit: Mapping[str, Any]) -> list[str]:
    """The sentences under an audit's verdict: its warnings, and rows that are training rows."""
    overlapping = overlap_sentence(audit.get("overlap"))
    return [*(audit.get("warnings") or ()), *([overlapping] if overlapping else [])]


def _loyalty_row(name: str, part: Mapping[str, Any], meaning: str | None) -> dict[str, Any]:
    low, high = part.get("low"), part.get("high")
    interval = None if low is None or high is None else f"{_number(low)} to {_number(high)}"
    plain = {key: part.get(key) for key in ("value", "n", "floor", "gain")}
    return {"name": title_with_dagger(name, part), "interval": interval, "meaning": meaning, **plain}


def _saliency_note(part: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if part is None else {"method": part.get("method"), "skipped": part.get("skipped")}


def _named(facts: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in (facts or {}).items() if value is not None]


def label_kind(facts: Mapping[str, Any]) -> LabelKind:
    """The kind of a run's labels, by the figures of ``metrics.json`` that only this kind has.

    Example: ``label_kind({"eval": {"span_f1": 0.8}}) == "tokens"``
    """
    loyalty = facts.get("loyalty") or {}
    if _hub_task(facts) == TOKEN_TASK:
        return "tokens"
    if "prediction" in loyalty:
        return "scores"
    return "multi_label" if "exact_match" in loyalty else "classes"


def _hub_task(facts: Mapping[str, Any]) -> str:
    """The hub's name of the task. A task with metrics of spans is token classification."""
    return TOKEN_TASK if "span_f1" in (facts.get("eval") or {}) else "text-classification"


def _front_matter(facts: Mapping[str, Any]) -> str:
    """The YAML front matter that the hub reads. The YAML library writes it, so no text can end it or add a key."""
    matter: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": _hub_task(facts),
        "tags": ["knowledge-distillation", "gradistill", _one_line(facts["method"])],
    }
    matter["license"] = _one_line(facts.get("license") or "unknown")
    teacher = str((facts.get("teacher") or {}).get("name") or "")
    if _HUB_ID.fullmatch(teacher):
        matter |= {"base_model": [teacher], "base_model_relation": "finetune"}
    scores = {
        str(name): float(value)
        for name, value in (facts.get("eval") or {}).items()
        if isinstance(value, Real) and isfinite(value)
    }
    if scores:
        matter["metrics"] = list(dict.fromkeys(map(_hub_metric, scores)))
        matter["model-index"] = _results(facts, scores)
    return yaml_text(matter)


def _hub_metric(name: str) -> str:
    """The hub's name of a metric. Several of ours may have one: their own names tell them apart."""
    return _ON_THE_HUB.get(name, name)


def _results(facts: Mapping[str, Any], scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """The hub's ``model-index``: the metrics of the validation split."""
    data = _one_line((facts.get("data") or {}).get("source") or facts["task"])
    result = {
        "task": {"type": _hub_task(facts), "name": _one_line(facts["task"])},
        "dataset": {"name": data, "type": data, "split": "validation"},
        "metrics": [
            {"type": _hub_metric(name), "value": round(value, 4), "name": name}
            for name, value in scores.items()
        ],
    }
    name = _one_line(facts["student"].get("name") or "Text classifier")
    return [{"name": name, "results": [result]}]


def _of_split(split: str, there: int, most: int | None) -> str:
    """The name of a split with its number of rows, and of those of them that were trained on if that is limited."""
    return f"{split} {most:,} of {there:,}" if most is not None and most < there else f"{split} {there:,}"


def _data(
    data: Mapping[str, Any] | None, texts: Mapping[str, Any] | None, training: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The source of the rows, their number in each split, and how long texts are read."""
    if not data:
        return None
    most = {"train": training.get("max_train_rows")}
    rows = ", ".join(
        _of_split(split, count, most.get(split)) for split, count in (data.get("rows") or {}).items()
    )
    columns = " and ".join(data.get("text_columns") or ())
    return {"source": data.get("source"), "rows": rows, "columns": columns, "reading": _reading(texts or {})}


def _reading(texts: Mapping[str, Any]) -> Ready | None:
    """A sentence on texts that are longer than the model's length."""
    length, overlap = texts.get("max_length"), texts.get("window_overlap", 0)
    if length is None:
        return None
    pool = {"mean": "mean", "max": "maximum"}.get(str(texts.get("windows")))
    if pool is None:
        return Ready(f"Texts are cut at {_number(length)} tokens.")
    return Ready(
        f"Longer texts are read in windows of {_number(length)} tokens that share {_number(overlap)} at most; "
        f"figures are of the {pool} over a text's windows, as in `gradistill predict`."
    )


def _one_line(value: Any) -> str:
    return printable(" ".join(public_name(str(value)).split()))


def yaml_text(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000).rstrip("\n")


def _without_paths(content: Any) -> Any:
    """The recipe with plain containers, and with all local paths reduced to their last part."""
    if isinstance(content, Mapping):
        return {_without_paths(key): _without_paths(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_paths(value) for value in content]
    if content is None or isinstance(content, bool | int | float):
        return content
    return printable(public_name(str(content)))


def _fence_for(content: str) -> str:
    """A code fence longer than any run of backticks inside."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", content)), default=0))
