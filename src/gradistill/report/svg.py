"""Plots for a page, as inline SVG.

The output of matplotlib is rewritten. Style attributes become plain attributes, so that the page's policy can forbid
all other styles. Text, axes and lines take the colour of the page, light or dark. Ids get a prefix of their plot.
Series differ in marker and line as well as in colour.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from gradistill.printing import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""A placeholder for the page's colour of text, replaced when the SVG is written."""

COLOURS = ("#4a90d9", "#d9730d", "#1f9e7a", "#b565b8", "#9a8a1a")
"""Colours of medium lightness, which are visible on white and on near black."""

LABEL_WIDTH = 22
WIDTH = 4.2  # inches: about a phone's width, so that text keeps its size there


@dataclass(frozen=True)
class Plot:
    """One plot: its title, a sentence about it, and the SVG."""

    title: str
    note: str
    svg: str


def short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= LABEL_WIDTH else line[: LABEL_WIDTH - 1] + "…"


def svg(draw: Callable[[Axes], None], title: str, height: float, legend: int) -> str:
    """Draw on one pair of axes; returns the SVG. The user's settings of matplotlib have no effect."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a glyph that the measuring font lacks; the browser's font draws the text
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(title))
        figure = Figure(figsize=(WIDTH, height + 0.22 * (legend if legend > 1 else 0)), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.set_axisbelow(True)
        draw(axes)
        if legend > 1:
            figure.legend(loc="outside upper left", frameon=False, ncols=1 if legend < 3 else 2, fontsize=8.5)
        written = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _inline(written.getvalue(), title)


def _settings(title: str) -> Any:
    """The settings of matplotlib: text stays text and is no formula, and ids depend on the title, not on chance."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    fixed = {"svg.fonttype": "none", "svg.hashsalt": title, "text.parse_math": False, "font.size": 9.5}
    return fixed | dict.fromkeys(inked, INK) | {"axes.spines.top": False, "axes.spines.right": False}


def _inline(written: bytes, title: str) -> str:
    """The drawing without prolog, namespaces and style sheet, and with ids that are unique on the page."""
    root = ElementTree.fromstring(written)
    prefix = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
    for parent in root.iter():
        for child in [c for c in parent if c.tag.endswith(("}style", "}metadata"))]:
            parent.remove(child)
        attributes = {name.rsplit("}", 1)[-1]: value for name, value in parent.attrib.items()}
        for rule in attributes.pop("style", "").split(";"):
            name, _, value = (part.strip() for part in rule.partition(":"))
            if name and not name.startswith("font-family"):
                attributes[name] = value
        parent.tag = parent.tag.rsplit("}", 1)[-1]
        parent.attrib.clear()
        parent.attrib.update({name: _value(name, value, prefix) for name, value in attributes.items()})
    view = root.get("viewBox") or ""
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "role": "img", "aria-label": f"Plot: {title}", "stroke-linejoin": "round"}
    )
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")
