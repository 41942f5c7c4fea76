"""Terminal output: the result of ``gradistill explain``, and the tables of the commands.

Colour is never the only sign: ``+`` (toward the label) and ``-`` (away from it) follow the words if there is no colour,
and are always in the table. Colour-blind readers distinguish blue and orange, and the shades keep their contrast on a
light and on a dark background. Text from outside goes through ``printable`` into ``rich.text.Text``, so that neither
the terminal nor rich interprets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from gradistill.data.word_scores import WordScore
from gradistill.printing import printable

LEVELS = (0.1, 0.33, 0.66)
"""Shares of the strongest word's score from which a word is marked weak, medium or strong."""

TOWARD = ("#4a90d9", "underline bold #4a90d9", "bold white on #1f5fae")
AWAY = ("#d9730d", "underline bold #d9730d", "bold white on #b85300")
BAR_WIDTH = 20
TOP_WORDS = 10
LONGEST_WORD = 30
"""A word in a table of at most this number of columns is not broken."""
LABELS_SHOWN = 5


@dataclass(frozen=True)
class Explanation:
    """One prediction and the words that support it, ready to be shown.

    ``label`` is the explained label, which need not be the predicted (most probable) one. ``words`` have positive
    scores if they support ``label`` (or a higher ``prediction``), and negative ones if they oppose it. With
    ``signed=False`` the scores are sizes without a direction. ``probabilities`` is for classification, ``prediction``
    for regression. ``residual`` is the completeness residual of Integrated Gradients as a share of
    ``|F(E) − F(baseline)|``, ``None`` for methods without one. ``cut`` holds the number of tokens that the model read
    and that of the whole text, if it read only a part. ``assigned`` are the labels that a multi-label classifier
    predicts, at its thresholds; ``None`` for other models.
    """

    model: str
    texts: tuple[str, ...]
    words: list[WordScore]
    label: str
    probabilities: dict[str, float] | None
    prediction: float | None
    target: str
    method: str
    residual: float | None
    signed: bool = True
    cut: tuple[int, int] | None = None
    assigned: tuple[str, ...] | None = None

    @property
    def predicted(self) -> tuple[str, ...]:
        """The predicted label or labels; with equal probabilities the explained label."""
        return tuple(label for label, _ in self.ranked[:1]) if self.assigned is None else self.assigned

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The labels with their probabilities, the highest first. With equal probabilities the explained label is
        first, so that a tie does not look like another prediction."""
        labels = (self.probabilities or {}).items()
        return sorted(labels, key=lambda item: (-item[1], item[0] != self.label))

    def _repr_html_(self) -> str:
        from gradistill.report.notebook import explanation_html

        value = "" if self.probabilities is None else f" ({self.probabilities.get(self.label, 0.0):.2f})"
        title = (
            f"{self.label}: {self.prediction:.3f}" if self.prediction is not None else f"{self.label}{value}"
        )
        return explanation_html(title, self.words, self.texts, self.signed)


@dataclass(frozen=True)
class HeatMap:
    """Words with marks by score. The console that prints them decides between colours and signs."""

    words: Sequence[WordScore]
    texts: Sequence[str]
    signed: bool
    toward: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        colour = console.color_system is not None and not console.no_color
        top = max((abs(word.score) for word in self.words), default=0.0)
        for segment, text in enumerate(self.texts):
            if len(self.texts) > 1:
                yield Text(f"Text {segment + 1}", style="bold")
            yield self._line(text, [word for word in self.words if word.segment == segment], top, colour)
            yield Text()
        yield _legend(self.toward if self.signed else None, colour)

    def _line(self, text: str, words: Sequence[WordScore], top: float, colour: bool) -> Text:
        line, end = Text(), 0
        for word in words:
            if line and text[end : word.start].strip() != text[end : word.start]:
                line.append(" ")
            _append_marked(line, printable(word.text), _level(word.score, top), word.score > 0, colour)
            end = word.end
        if text[end:].strip():
            line.append(" ... (the rest was not read by the model)", style="italic")
        return line


def heat_map(
    words: Sequence[WordScore],
    texts: Sequence[str],
    *,
    signed: bool = True,
    toward: str = "the prediction",
) -> HeatMap:
    """The texts with their words marked by score, relative to the strongest word of all texts.

    ``toward`` is the name of what positive scores support, in the legend.
    """
    return HeatMap(words, texts, signed, toward)


def render(explanation: Explanation) -> RenderableType:
    """The whole explanation: the prediction, the marked text, the strongest words, and the method."""
    toward = "a higher prediction" if explanation.prediction is not None else explanation.label
    return Group(
        _headline(explanation),
        Text(),
        heat_map(explanation.words, explanation.texts, signed=explanation.signed, toward=toward),
        Text(),
        _top_words(explanation),
        Text(),
        _footnote(explanation),
    )


@dataclass(frozen=True)
class ResultsTable:
    """Rows as a table that fits its console: see ``results_table``."""

    rows: Sequence[Mapping[str, object]]
    title: str = ""
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        columns = {key: [_cell(row[key]) if key in row else "" for row in self.rows] for key in keys}
        heads = [printable(key) for key in keys]
        table = Table(
            title=Text(printable(self.title), style="bold") if self.title else None,
            caption=Text(printable(self.note)) if self.note else None,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE,
            show_edge=False,
            padding=(0, 0, 0, 1),
        )
        texts = [[head, *cells] for head, cells in zip(heads, columns.values(), strict=True)]
        for key, head, width in zip(keys, heads, _widths(texts, options.max_width), strict=True):
            filled = [row[key] for row in self.rows if row.get(key) is not None]
            numeric = bool(filled) and all(_is_number(value) for value in filled)
            table.add_column(Text(head), justify="right" if numeric else "left", overflow="fold", width=width)
        for cells in zip(*columns.values(), strict=True):
            table.add_row(*map(Text, cells))
        yield table


def results_table(rows: Sequence[Mapping[str, object]], title: str = "", note: str = "") -> ResultsTable:
    """Rows as a table: columns in the order of their keys' first occurrence, numbers to the right, 3 decimals.

    A missing key is an empty cell, ``None`` is ``-``. On a narrow console the widest columns wrap first, between words
    if possible.
    """
    return ResultsTable(rows, title, note)


def _widths(columns: Sequence[Sequence[str]], available: int) -> list[int]:
    """The width of each column: that of its longest text, or less if all columns together are too wide."""
    widths = [max(map(cell_len, texts)) for texts in columns]
    words = [max((cell_len(word) for text in texts for word in text.split()), default=1) for texts in columns]
    for least in ([min(word, LONGEST_WORD) for word in words], [1] * len(words)):
        excess = sum(widths) + 2 * len(widths) - 1 - available  # a space to the left, and one between
        for _ in range(excess):
            spare = [width - floor for width, floor in zip(widths, least, strict=True)]
            shrinks = [place for place in range(len(widths)) if spare[place] > 0]
            if not shrinks:
                break
            widths[max(shrinks, key=widths.__getitem__)] -= 1
    return widths


def _headline(explanation: Explanation) -> RenderableType:
    head = Text.assemble((printable(explanation.model), "bold"), " predicts ")
    if explanation.prediction is not None:
        return head.append(f"{explanation.prediction:.3f}", style="bold")
    ranked = explanation.ranked
    if not ranked:
        return head.append(printable(explanation.label), style="bold")
    head.append(printable(", ".join(explanation.predicted) or "no label"), style="bold")
    if explanation.predicted != (explanation.label,):
        head.append("; explained is ").append(printable(explanation.label), style="bold")
    table = Table.grid(padding=(0, 2))
    for label, probability in ranked[:LABELS_SHOWN]:
        bar = "#" * round(probability * BAR_WIDTH)
        table.add_row(Text("  " + printable(label)), Text(f"{probability:.3f}"), Text(bar))
    if len(ranked) > LABELS_SHOWN:
        table.add_row(Text(f"  and {len(ranked) - LABELS_SHOWN} more labels", style="italic"))
    return Group(head, table)


def _legend(toward: str | None, colour: bool) -> Text:
    """The legend of the marks; ``toward`` is ``None`` for scores without a direction."""
    legend = Text("Marked ")
    directions = ((True, "importance, for or against"),)
    if toward is not None:
        directions = ((True, f"for {printable(toward)}"), (False, "against it"))
    for positive, meaning in directions:
        for level, name in enumerate(("weak", "medium", "strong"), start=1):
            _append_marked(legend, name, level, positive, colour)
            legend.append(" ")
        legend.append(f"{meaning}; ")
    return legend.append(f"unmarked is under {LEVELS[0]:.0%} of the strongest word.")


def _append_marked(line: Text, word: str, level: int, positive: bool, colour: bool) -> None:
    if colour and level:
        line.append(word, style=(TOWARD if positive else AWAY)[level - 1])
    else:
        line.append(word + (f"[{('+' if positive else '-') * level}]" if level else ""))


def _level(score: float, top: float) -> int:
    """The level of a word: 0 is unmarked, 1 to 3 are weak to strong. A quotient would overflow with a tiny ``top``, so
    products are compared."""
    return sum(abs(score) >= share * top for share in LEVELS) if score else 0


def _top_words(explanation: Explanation) -> Table:
    ranked = sorted(explanation.words, key=lambda word: -abs(word.score))[:TOP_WORDS]
    ranked = [word for word in ranked if word.score]
    top = abs(ranked[0].score) if ranked else 0.0
    form = "+.3f" if 0.01 <= top < 1e4 else "+.2e"
    table = Table(
        title=Text("Strongest words", style="bold"), title_justify="left", box=SIMPLE, show_edge=False
    )
    table.add_column("Word", overflow="fold", max_width=30)
    if len(explanation.texts) > 1:
        table.add_column("Text", justify="right")
    table.add_column("Score", justify="right", no_wrap=True)
    table.add_column("", min_width=BAR_WIDTH)
    for word in ranked:
        segment = [Text(str(word.segment + 1))] if len(explanation.texts) > 1 else []
        score = format(word.score, form) if explanation.signed else format(word.score, form[1:])
        table.add_row(Text(printable(word.text)), *segment, Text(score), _bar(word.score, top))
    return table


def _bar(score: float, top: float) -> Text:
    """``+`` or ``-`` repeated, the strongest word at full width."""
    length = max(1, round(abs(score) / top * BAR_WIDTH))
    return Text(("+" if score > 0 else "-") * length, style=(TOWARD if score > 0 else AWAY)[0])


def _footnote(explanation: Explanation) -> Text:
    lines = [
        f"{printable(explanation.method)} of {printable(explanation.target)}, "
        "summed over the pieces of a word; special tokens are not shown."
    ]
    if explanation.residual is not None:
        lines.append(
            f"Completeness: the scores miss F(E) - F(baseline) by {abs(explanation.residual):.2%} of it."
        )
    if explanation.cut is not None:
        read, whole = explanation.cut
        lines.append(f"The text is cut: the model read {read} of its {whole} tokens (--max-length).")
    return Text("\n".join(lines), style="italic")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):z.3f}"
    return printable(str(value))
