"""The page of an audit in a browser: what its reader can do, and what text in it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradistill.report.audit_page import audit_page
from gradistill.report.page_examples import visible
from hostile import HOSTILE
from report.audits import SMALL, assessed, audit, example, examples, flipped, hostile, regression, wide
from report.browsing import ORDERS, Visit, browser
from slow import slow

pytestmark = pytest.mark.usefixtures("drawings")


@pytest.fixture(scope="module")
def html(drawings: None) -> str:
    return audit_page(audit(), examples())


@pytest.fixture(scope="module")
def pages(html: str) -> tuple[str, ...]:
    """The usual page, one with many columns, and one with all tables."""
    return html, audit_page(wide(), examples()), audit_page(assessed(), [flipped()])


@pytest.fixture(scope="module")
def hostile_html(drawings: None) -> str:
    return audit_page(*hostile())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """Opens pages, and in the end asserts that none of them did what it must not."""
    visits: list[Visit] = []

    def open_page(html: str, **context: Any) -> Visit:
        visits.append(Visit(chromium, html, tmp_path, **context))
        return visits[-1]

    yield open_page
    for one in visits:
        one.close()
    assert [trouble for one in visits for trouble in one.trouble] == []


def test_filters_agree_with_the_examples(visit: Callable[..., Visit], html: str) -> None:
    one = visit(html)
    kinds = {
        "all": lambda a: True,
        "label": lambda a: a["same_label"] is False,
        "reasons": lambda a: a["same_label"] and a["agreement"] < 0.5,
        "same": lambda a: a["same_label"] and a["agreement"] >= 0.5,
    }
    for number in range(2):
        one.page.locator("#student").select_option(str(number))
        for kind, fits in kinds.items():
            one.show(kind)
            wanted = {e["index"] for e in examples() if fits(e["students"][number])}
            assert set(one.everything()) == wanted
            assert len(wanted) >= 20
            label = one.page.locator(f'label:has(input[value="{kind}"])').text_content() or ""
            assert label.strip().endswith(f"({len(wanted)})")
    assert one.page.locator(".student .summary bdi").first.text_content() == f" {SMALL}"


def test_orders(visit: Callable[..., Visit], html: str) -> None:
    one = visit(html)
    values = {
        "disagreement": lambda e: -e["students"][0]["disagreement"],
        "confident": lambda e: -e["teacher"]["confidence"],
        "unsure": lambda e: e["teacher"]["confidence"],
        "long": lambda e: -len(e["words"]),
        "short": lambda e: len(e["words"]),
        "index": lambda e: e["index"],
    }
    assert one.page.locator("#order").input_value() == ORDERS[0]
    for order in reversed(ORDERS):
        one.page.locator("#order").select_option(order)
        assert one.everything() == [e["index"] for e in sorted(examples(), key=values[order])], order


def test_search_reads_texts_and_labels_and_shows_the_count(visit: Callable[..., Visit], html: str) -> None:
    one = visit(html)
    count, search = one.page.locator("#count"), one.page.locator("#search")
    assert count.text_content() == "Showing 20 of 60 examples"
    assert count.get_attribute("aria-live") == "polite"
    search.fill("KETTLE")
    wanted = {e["index"] for e in examples() if "kettle" in e["texts"][0].lower()}
    assert set(one.everything()) == wanted
    assert count.text_content() == f"Showing {len(wanted)} of {len(wanted)} examples"
    search.fill("no such words")
    assert count.text_content() == "No example fits."
    search.fill("neutral")
    assert one.shown()


def test_show_more_brings_the_next_page_and_takes_the_focus_there(
    visit: Callable[..., Visit], html: str
) -> None:
    one = visit(html)
    assert len(one.shown()) == 20
    one.page.locator("#more").click()
    assert len(one.shown()) == 40
    place = "Array.from(document.querySelectorAll('#list > li')).indexOf(document.activeElement)"
    assert one.page.evaluate(place) == 20
    one.page.locator("#more").click()
    assert len(one.shown()) == 60
    assert not one.page.locator("#more").is_visible()
    one.show("label")
    assert len(one.shown()) == 20, "a new question starts at the first page"


def test_every_control_is_reached_and_used_by_keyboard(visit: Callable[..., Visit], html: str) -> None:
    one = visit(html)
    reached = []
    for _ in range(80):
        one.page.keyboard.press("Tab")
        reached.append(one.page.evaluate("document.activeElement.id || document.activeElement.value"))
        if reached[-1] == "all":
            one.page.keyboard.press("ArrowDown")
            assert one.page.locator('input[value="label"]').is_checked()
            one.page.keyboard.press("ArrowUp")
        if reached[-1] == "more":
            break
    assert [name for name in reached if name in ("student", "all", "search", "order", "more")] == [
        "student", "all", "search", "order", "more",
    ]  # fmt: skip
    assert one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_line_is_summed_up_and_its_heaviest_words_stand_out(visit: Callable[..., Visit]) -> None:
    text = "The service was excellent 🙂"
    shares = {"service": 0.12, "excellent": 0.34, "was": 0.05, "The": 0.01}
    spans = [
        {
            "segment": 0,
            "start": text.index(w),
            "end": text.index(w) + len(w),
            "teacher": s,
            "students": [s, s],
        }
        for w, s in shares.items()
    ]
    told = {"label": "positive", "confidence": 0.98, "prediction": None}
    one = visit(audit_page(audit(), [example(0, [text], teacher=told, words=spans)]))
    line = one.page.locator(".reading.teacher")
    printed = (line.locator(".summary").text_content() or "").replace("\u00a0", " ")
    assert printed == "teacher: positive, 98 %; rests most on excellent 34 %, service 12 %, was 5 %"
    assert line.locator(".text").text_content() == text
    assert line.locator(".heavy").all_text_contents() == ["service", "was", "excellent"]
    heavy = line.locator(".heavy").last
    assert heavy.get_attribute("title") == "34\u00a0%"
    assert heavy.evaluate("e => getComputedStyle(e).textDecorationLine + getComputedStyle(e).fontWeight") == (
        "underline700"
    )


def test_an_edit_shows_both_texts_with_the_words_marked(visit: Callable[..., Visit]) -> None:
    one = visit(audit_page(audit(), [flipped()]))
    block = one.page.locator(".flip")
    assert block.locator("p").all_text_contents() == [
        "change these 2 words and the teacher predicts neutral; the student predicts neutral",
        "A man is asleep on a bench", "A dog is awake on a bench",
    ]  # fmt: skip
    assert block.locator("del").all_text_contents() == ["man", "asleep"]
    assert block.locator("ins").all_text_contents() == ["dog", "awake"]
    one.page.locator("#student").select_option("1")
    assert (block.locator("p").first.text_content() or "").endswith("the student still predicts negative")


def test_a_regression_has_filters_without_labels(visit: Callable[..., Visit]) -> None:
    one = visit(audit_page(*regression()))
    assert one.page.locator("#student").count() == 0
    assert one.page.locator('input[value="label"]').count() == 0
    one.show("reasons")
    assert one.shown() == [0]
    one.show("same")
    assert one.shown() == [1]
    assert "3.250" in (one.page.locator(".student .summary").text_content() or "")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_tables_and_not_the_page(
    visit: Callable[..., Visit], html: str, hostile_html: str, scheme: str
) -> None:
    for page in (html, hostile_html):
        one = visit(page, viewport={"width": 390, "height": 800}, color_scheme=scheme)
        one.everything()
        assert one.page.evaluate("document.documentElement.scrollWidth") == 390


CUT = """Array.from(document.querySelectorAll(".scroll")).filter(e => e.scrollWidth > e.clientWidth)
.map(e => e.getAttribute("aria-label"))"""


@pytest.mark.slow
def test_no_table_is_cut(visit: Callable[..., Visit], pages: tuple[str, ...]) -> None:
    for page in pages:
        one = visit(page)
        one.page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        for width in (320, 390, 768, 1280, 1920):
            one.page.set_viewport_size({"width": width, "height": 900})
            assert one.page.evaluate(CUT) == [], width
            assert one.page.evaluate("document.documentElement.scrollWidth") == width


def test_no_table_is_cut_on_paper(visit: Callable[..., Visit], pages: tuple[str, ...]) -> None:
    for page in pages[1:]:
        one = visit(page, viewport={"width": 680, "height": 1000})  # A4 with margins
        one.page.emulate_media(media="print")
        one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert one.page.locator("details:not([open])").count() == 0
        assert one.page.evaluate(CUT) == []
        assert one.page.evaluate("document.documentElement.scrollWidth") == 680


@pytest.mark.parametrize("size", [(390, 800), slow((1280, 900))])
def test_the_controls_stay_in_sight_and_leave_room(
    visit: Callable[..., Visit], html: str, size: tuple[int, int]
) -> None:
    one = visit(html, viewport={"width": size[0], "height": size[1]})
    one.page.locator("#list > li").nth(15).scroll_into_view_if_needed()
    box = one.page.locator("#controls").bounding_box()
    assert box is not None
    assert (box["y"], box["height"] < size[1] / 3) == (0, True)
    one.page.locator("#more").click()
    first = one.page.locator("#list > li").nth(20).bounding_box()
    assert first is not None
    assert first["y"] >= box["height"], "the example that has the focus is not behind the controls"


def test_hostile_text_is_text(visit: Callable[..., Visit], html: str, hostile_html: str) -> None:
    one, plain = visit(hostile_html), visit(html)
    kinds = "Array.from(new Set(Array.from(document.querySelectorAll('body *'), e => e.localName)))"
    ours = {"details", "summary", "pre", "code", "caption", "b", "del", "ins"}
    assert set(one.page.evaluate(kinds)) <= set(plain.page.evaluate(kinds)) | ours
    assert one.page.locator("script").count() == plain.page.locator("script").count() == 2
    assert len(one.everything()) == len(HOSTILE)
    lines = one.page.locator("#list .teacher .text:nth-of-type(2)").all_text_contents()
    assert sorted(lines) == sorted(visible(text) for text in HOSTILE)
    body = " ".join(one.page.evaluate("document.body.textContent").split())
    for text in HOSTILE:
        assert " ".join(visible(text).split()) in body
    one.page.locator("#search").fill("</SCRIPT><img")
    assert one.shown()


def test_on_paper_stand_the_examples_that_were_shown_and_no_controls(
    visit: Callable[..., Visit], html: str
) -> None:
    one = visit(html, color_scheme="dark")
    one.show("label")
    one.page.emulate_media(media="print")
    assert not one.page.locator("#controls, #more, nav").filter(visible=True).count()
    assert one.page.locator("#list > li").filter(visible=True).count() == 20
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_javascript_all_but_the_browser_is_there(visit: Callable[..., Visit], html: str) -> None:
    one = visit(html, java_script_enabled=False)
    assert "needs JavaScript" in one.page.locator("noscript").inner_text()
    assert not one.page.locator("#browser").is_visible()
    assert one.page.locator("figure svg").count() == 5
    assert one.page.locator("table").first.is_visible()
