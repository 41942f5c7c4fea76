"""The page of an audit: what is in the file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.auditing.loyalty_measures import NAMES
from gradistill.report.audit_page import OUTPUTS, audit_page
from gradistill.report.audit_plots import output_plots, slice_plots
from gradistill.report.page_examples import embedded, pieces, visible
from report.audits import (
    LARGE,
    SMALL,
    assessed,
    audit,
    bare,
    estimate,
    example,
    examples,
    flipped,
    hostile,
    regression,
    student,
    wide,
    words,
)

SCRIPT, STYLE = r"<script>(.*?)</script>", r"<style>(.*?)</style>"
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.fixture(scope="module")
def html() -> str:
    return audit_page(audit(), examples())


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=6))
def test_any_text_comes_back_from_the_embedded_json(content: Any) -> None:
    text = embedded(content)
    assert json.loads(text) == content
    assert text.isascii()
    assert not set(text) & set("<>&")


@given(ANY_TEXT, st.lists(st.tuples(st.integers(-2, 40), st.integers(-2, 40))))
def test_pieces_are_the_whole_text_whatever_the_spans(text: str, spans: list[tuple[int, int]]) -> None:
    cut = pieces(
        text, [{"segment": 0, "start": a, "end": b, "teacher": 0.5, "students": [0.5]} for a, b in spans]
    )
    assert "".join(piece if isinstance(piece, str) else piece[0] for piece in cut) == visible(text)


def test_line_ends_of_windows_are_line_ends() -> None:
    text = "dear\r\nall\rof\tyou"
    assert visible(text) == "dear\nall\\rof\tyou"
    words = [{"start": 6, "end": 9, "teacher": 1.0, "students": [0.5]}]
    assert pieces(text, words) == ["dear\n", ["all", 1.0, [0.5]], "\\rof\tyou"]


def test_an_emoji_shifts_no_word() -> None:
    text = "😀👨‍👩‍👧 good 🇩🇪 service"
    cut = pieces(text, words([text]))
    assert {"good", "service"} <= {piece[0] for piece in cut if not isinstance(piece, str)}


def test_the_policy_allows_this_script_and_this_style_sheet_and_nothing_else(html: str) -> None:
    policy = unescape(re.findall(r'Content-Security-Policy" content="(.*?)"', html)[0])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (script,), (style,) = (re.findall(pattern, html, re.DOTALL) for pattern in (SCRIPT, STYLE))
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (script, style)]
    assert rules == {
        "default-src": "'none'", "script-src": f"'sha256-{hashes[0]}'", "style-src": f"'sha256-{hashes[1]}'",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("figures", [None, [], {"loyalty": None}, {"loyalty": []}])
def test_a_student_without_figures(figures: Any) -> None:
    of_two = audit()
    of_two["students"][0]["figures"] = figures
    assert "loyalty" in audit_page(of_two, examples())


def test_figures_have_three_decimals_an_interval_and_n(html: str) -> None:
    text = _text(html)
    assert "Label loyalty ↑ runs/adkd-6x384 0.935 0.914–0.956 872 runs/kd-2x128 0.845 0.824–0.866 872" in text
    assert "0.532 below the limit 0.600" in text
    assert "868, 4 skipped" in text
    assert "41.3" in text
    assert "< 0.001" in text


def test_a_figure_shows_which_values_are_good_and_what_it_is_compared_with(html: str) -> None:
    text = _text(html)
    assert "Student sufficiency ↓" in text
    assert "Floor" not in text, "no figure has one"
    assert text.count("Teacher accuracy ↑ all 0.921 0.900–0.942 872") == 1, "it is the same for all students"
    text = _text(audit_page(wide(), []))
    assert "Value 95 % interval n Floor Gain Reference" in text
    assert "Response loyalty ↑ runs/student-0 -0.145 -0.445 to 0.155 40 -0.125 -0.018 0.581" in text
    slope = student(figures={"agreement": {"response_slope": estimate(0.7)}})
    assert "Response slope → 1" in _text(audit_page(audit(students=[slope]), []))


def test_plots_stand_before_p_values(html: str) -> None:
    assert html.rindex("<figure>") < html.index('id="comparisons"')
    assert "1 paired comparison, with" in html
    of_three = audit_page(wide(), [])
    assert (
        "8 paired comparisons, with" in of_three
    )  # of two pairs of students, and of each with the reference twice
    assert len(re.findall("minus <bdi>the reference</bdi>", of_three)) == 6


def test_the_verdict_is_a_word_and_names_what_does_not_pass() -> None:
    page = audit_page(assessed(), examples())
    head = _text(page[page.index("<header>") : page.index("<nav")])
    assert "fail At least one check fails. Of 2 students 1 passes, 1 fails." in head
    assert f"pass {LARGE} Within all limits. A note on {LARGE}" in head, "what passes is not listed"
    assert f"fail {SMALL} Within all limits. fail: Check of kappa: finding of kappa A note on {SMALL}" in head
    assert head.count("A note on all students") == 1
    assert 'class="verdict fail"' in page
    limits = _text(page[page.index('id="limits"') :])
    assert "Check of overlap pass 0.550 above 0.8 finding of overlap why overlap has a limit" in limits
    assert "Check of kappa fail 0.550 below 0.8 below 0.6 finding of kappa why kappa has a limit" in limits
    assert 'class="verdict warn"' in audit_page(assessed(("pass", "warn")), [])


def test_the_parts_stand_in_the_order_of_a_document() -> None:
    page = audit_page(assessed(), [flipped()])
    parts = (
        "identity",
        "change",
        "outputs",
        "slices",
        "reasons",
        "robustness",
        "limits",
        "failures",
        "watch",
        "examples",
    )
    places = [page.index(f'<h2 id="{part}">') for part in parts]
    assert places == sorted(places)
    assert set(re.findall(r'href="#(.*?)"', page)) <= set(re.findall(r'id="(.*?)"', page)), (
        "links lead somewhere"
    )


def test_every_loyalty_of_outputs_stands_with_the_outputs() -> None:
    assert {*NAMES} - OUTPUTS == {"response", "saliency"}


def test_a_report_identifies_models_and_data_and_leaves_blanks() -> None:
    page = audit_page(assessed(), examples())
    text = _text(page)
    assert "2026-01-02 03:04:05 UTC" in text
    assert f"{SMALL} , SHA-256 of the weights file {'5a' * 32}" in text
    assert f"reviews.csv , SHA-256 {'7c' * 32}" in text
    assert "<pre>method: kd\ntraining:\n  epochs: 3 # &lt;b&gt;\n</pre>" in page
    assert "A text must take 15 ms." in text
    assert "Materiality (minor or major), and why" in text
    assert "(--reason fills this in)" not in text
    assert "(--reason fills this in)" in _text(audit_page(audit(), examples()))
    assert "no statement of conformity" in text


def test_labels_of_both_models_and_what_to_watch() -> None:
    text = _text(audit_page(assessed(), examples()))
    assert "negative neutral positive All" not in text, "the most frequent label of the teacher is first"
    assert "negative positive neutral All negative 40 0 7 47 positive 0 33 0 33 neutral 0 0 0 0" in text
    assert "50–60 % 8 6 75% 86%" in text
    assert "90–100 % 72 1 1% 14%" in text
    assert "4–9 tokens runs/adkd-6x384 Length Label loyalty ↑ 0.710" in text
    assert "By region" in text
    assert (
        "The shares of the predicted labels. In this audit: negative 50%, positive 41%, neutral 9%." in text
    )
    pairs = [{"teacher": f"a{k}", "student": f"b{k}", "n": 40 - k} for k in range(30)]
    many = audit(students=[student(confusion=pairs)])
    assert "The most frequent of 30 pairs of different labels" in (text := _text(audit_page(many, [])))
    assert "a19 b19 21" in text
    assert "a20 b20" not in text


def test_known_failures_are_examples_and_edits_that_turn_the_teacher_alone() -> None:
    page = audit_page(assessed(), [*examples(), flipped(99)])
    text = _text(page[page.index('id="failures"') : page.index('id="watch"')])
    first, second = text.split(SMALL)
    assert "Example 99" not in first, "the first student follows the edit"
    assert (
        "Example 99: change man to dog ; asleep to awake , and the teacher predicts neutral ; "
        "the student predicts negative ." in second
    )
    for part, k in ((first, 0), (second, 1)):
        differing = [e for e in examples() if not e["students"][k]["same_label"]]
        worst = max(differing, key=lambda e: e["students"][k]["disagreement"])
        assert part.count("The teacher predicts") == 3
        assert f"Example {worst['index']}, gold:" in part


def test_what_is_missing_is_left_out() -> None:
    text = _text(audit_page(bare(), []))
    assert "A new figure ↑ 0.500" in text
    assert "No examples were recorded." in text
    assert "Plots" not in text
    audit_page({}, [])
    audit_page(audit(students=[student("only", figures={}, by_label=[{"label": "x"}])]), [example(0, ["a"])])


def test_no_folder_of_the_machine_is_named() -> None:
    paths = [student("/home/ann/a/final"), student("/home/ann/b/final")]
    page = audit_page(audit(students=paths, settings={"data": "/home/ann/reviews.csv"}), examples())
    assert "home" not in _text(page)
    assert "final (2)" in page


def _text(page: str) -> str:
    """The page's text without script and style, blanks as one."""
    bare_page = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", bare_page)).split())


@pytest.mark.usefixtures("drawings")
@pytest.mark.parametrize("make", [lambda: (audit(), examples()), hostile, regression, lambda: (bare(), [])])
def test_nothing_in_the_page_loads_runs_or_styles_by_attribute(make: Callable[[], Any]) -> None:
    page = audit_page(*make())
    page.encode()
    seen: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append((tag, dict(attrs)))  # type: ignore[method-assign]
    parser.feed(page)
    assert not {tag for tag, _ in seen} & {"img", "iframe", "object", "embed", "link", "base", "image"}
    for tag, attributes in seen:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    ids = [attributes["id"] for _, attributes in seen if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("drawings")
def test_the_same_audit_gives_the_same_bytes() -> None:
    assert audit_page(audit(), examples()) == audit_page(audit(), examples())


@pytest.mark.usefixtures("drawings")
def test_plots_carry_labels_as_text_and_the_colour_of_the_page() -> None:
    drawn = [*slice_plots(audit()), *output_plots(audit())]
    assert [plot.title for plot in drawn] == [
        "Label loyalty by label", "Saliency loyalty by label", "Label loyalty against confidence",
        "Saliency loyalty against confidence", "Calibration",
    ]  # fmt: skip
    for plot in drawn:
        assert 'role="img"' in plot.svg
        assert "currentColor" in plot.svg
        assert "#000000" not in plot.svg, "a line that a dark page would swallow"
        assert not re.search("style=|<style|xml|font-family", plot.svg)
    assert ">neutral</text>" in drawn[0].svg


@pytest.mark.usefixtures("drawings")
def test_a_plot_of_many_labels_shows_the_lowest() -> None:
    labels = [{"label": f"$l{i}$", "n": 9, "figures": {"label": {"value": i / 200}}} for i in range(150)]
    (plot,) = slice_plots({"students": [{"name": "s", "by_label": labels}]})
    assert "24 of 150 labels" in plot.note
    assert ">$l23$</text>" in plot.svg
    assert "$l24$" not in plot.svg
