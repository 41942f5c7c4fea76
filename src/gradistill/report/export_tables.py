"""The content of ``export.json`` as rows of tables, for the terminal (80 columns) and the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gradistill.auditing.trained_figures import title_with_dagger, trained_note
from gradistill.core_times import SHARED
from gradistill.data.tasks import metric_title
from gradistill.printing import printable
from gradistill.report.number_text import decimal, interval
from gradistill.report.terminal import results_table

NAMES = {"teacher": "teacher", "student": "student", "onnx": "ONNX", "int8": "INT8"}

_SPEED_NOTE = (
    "ms: latency of single rows; rows/s: in batches of 32; times: how many times as fast as the first model, the "
    "median over the same rows. Models took turns on this machine: trust ratios, not milliseconds."
)


def size_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model: MB on disk, times smaller than the first model, parameters, peak memory."""
    costs = found.get("costs") or {}
    first = next(iter(costs.values()))["bytes"] if costs else 0
    rows = []
    for name, cost in costs.items():
        row: dict[str, Any] = {"model": NAMES.get(name, name), "MB": f"{cost['bytes'] / 1e6:.1f}"}
        row["times smaller"] = f"{first / cost['bytes']:.1f}" if cost["bytes"] else None
        if "parameters" in cost:
            row["parameters"] = f"{cost['parameters'] / 1e6:.2f} M"
            row["of them embeddings"] = f"{cost['embeddings'] / 1e6:.2f} M"
        if cost.get("peak_mb"):
            row["peak MB"] = f"{cost['peak_mb']:.0f}"
        rows.append(row)
    return rows


def speed_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model and number of cores: latency, throughput, and speed relative to the first model."""
    costs, rows = found.get("costs") or {}, []
    for cores in dict.fromkeys(k for cost in costs.values() for k in cost.get("cores", {})):
        for name, cost in costs.items():
            part = cost["cores"][cores]
            rows.append({
                "cores": cores, "model": NAMES.get(name, name), "p50 ms": f"{part['p50_ms']:.2f}",
                "p95 ms": f"{part['p95_ms']:.2f}", "times": f"{part['times']:.1f}",
                "rows/s, 32": f"{part['rows_per_s']:.0f}", "times, 32": f"{part['times_batch']:.1f}",
            })  # fmt: skip
    return rows


def speed_note(found: Mapping[str, Any]) -> str:
    """The note on ``speed_rows``, with a warning if other processes kept cores busy."""
    costs = next(iter((found.get("costs") or {}).values()), {}).get("cores") or {}
    every = max(map(int, costs), default=0)
    crowded = [
        part["busy_cores"]
        for threads, part in costs.items()
        if part.get("busy_cores", 0.0) + int(threads) > every + SHARED
    ]
    if not crowded:
        return _SPEED_NOTE
    return (
        f"{_SPEED_NOTE} Other processes kept {max(crowded):.1f} of {every} cores busy meanwhile. That slows large "
        "models more, so even the ratios favour small ones: time them again on an idle machine."
    )


def cost_tables(found: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Size and speed as tables whose rows all have the same cells; empty if nothing was measured."""
    tables = []
    for rows in (size_rows(found), speed_rows(found)):
        heads = ["model", *(key for key in dict.fromkeys(k for row in rows for k in row) if key != "model")]
        if rows:
            tables.append([{head: row.get(head) for head in heads} for row in rows])
    return tables


def metric_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model: the task's metrics with their intervals."""
    positive = (found.get("data") or {}).get("positive")
    return [
        {"model": NAMES.get(name, name)} | {metric_title(k, positive): _figure(v) for k, v in metrics.items()}
        for name, metrics in found["metrics"].items()
    ]


def loyalty_rows(found: Mapping[str, Any], reference: str) -> list[dict[str, Any]]:
    """One row for each model: its loyalties to the student or the teacher, with their intervals."""
    return [
        {"model": NAMES.get(name, name)} | {title_with_dagger(k, v): _figure(v) for k, v in figures.items()}
        for name, figures in found["loyalty"].get(reference, {}).items()
    ]


def loyalty_note(found: Mapping[str, Any]) -> str | None:
    """The note on †, if a loyalty has it."""
    return trained_note(
        f for models in found["loyalty"].values() for own in models.values() for f in own.values()
    )


def export_view(found: Mapping[str, Any]) -> RenderableType:
    """The content of ``export.json`` as tables of at most 80 columns."""
    parts: list[RenderableType] = []
    sizes = [
        {("of embeddings" if key == "of them embeddings" else key): v for key, v in row.items()}
        for row in size_rows(found)
    ]
    tables: Sequence[tuple[str, list[dict[str, Any]]]] = [
        ("size", sizes),
        ("speed", speed_rows(found)),
        ("metrics of the task", metric_rows(found)),
        *((f"loyalty to the {reference}", loyalty_rows(found, reference)) for reference in found["loyalty"]),
    ]
    for title, rows in tables:
        if rows:
            parts.append(results_table(rows, title=title, note=speed_note(found) if title == "speed" else ""))
    if note := loyalty_note(found):
        parts.append(Text(note, style="italic"))
    lines = [
        vocabulary_line(found),
        layer_line(found),
        *(f"WARNING: {w}" for w in found["warnings"]),
        *(f"FAILED: {f}" for f in found["failed"]),
    ]
    return Group(*parts, *(Text(printable(line)) for line in lines if line))


def vocabulary_line(found: Mapping[str, Any]) -> str | None:
    """A sentence on the trimmed vocabulary; None if it is not trimmed."""
    part = found.get("vocabulary")
    return part and (
        f"Vocabulary: {part['tokens']:,} of {part['tokens_before']:,} tokens, those of {part['texts']:,} texts and "
        "single characters. These texts are predicted as before; others may be split into smaller pieces."
    )


def layer_line(found: Mapping[str, Any]) -> str | None:
    """A sentence on the gain and cost of layers in float; None if all are in INT8."""
    layers = (found.get("int8") or {}).get("layers")
    if not layers or not layers["in_float"]:
        return None
    before = layers["all_int8"]
    return (
        f"{len(layers['in_float'])} layers stay in float: {', '.join(layers['in_float'])}. Loyalty to the student "
        f"{before['loyalty']:.3f} with all in INT8, {layers['loyalty']:.3f} now; {before['bytes'] / 1e6:.1f} MB, "
        f"{layers['bytes'] / 1e6:.1f} MB now."
    )


def _figure(figure: Mapping[str, Any]) -> str | None:
    value, within = decimal(figure.get("value")), interval(figure)
    return value if value is None or within is None else f"{value} ({within})"
