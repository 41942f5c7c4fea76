"""The table for a pull request, read back with a Markdown parser."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradistill.auditing.per_example import without_groups
from gradistill.report.audit_markdown import audit_table
from report.audits import LARGE, SMALL, assessed, audit, bare, estimate, hostile, regression, student

PARSER = MarkdownIt("commonmark").enable("table")


def _parsed(text: str) -> tuple[str, list[list[str]], list[Any]]:
    """The title, the rows of the one table as plain text, and all tokens."""
    tokens = PARSER.parse(text)
    assert [t.type for t in tokens[:3]] == ["heading_open", "inline", "heading_close"]
    rows: list[list[str]] = []
    for token, after in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(_plain(after))
    return _plain(tokens[1]), rows, tokens


def _plain(inline: Any) -> str:
    return "".join(part.content for part in inline.children or [])


def _kinds(tokens: list[Any]) -> set[str]:
    return {part.type for token in tokens for part in (token, *(token.children or []))}


def test_the_table_has_a_row_per_figure_and_a_column_per_student() -> None:
    title, rows, _ = _parsed(audit_table(audit()))
    assert title == audit()["verdict"]
    assert rows[0] == ["", "runs/adkd-6x384", "runs/kd-2x128"]
    assert rows[1] == ["loyalty: label loyalty", "0.935 (0.914–0.956), n 872", "0.845 (0.824–0.866), n 872"]
    assert "prediction loyalty" not in audit_table(audit()), "no student has one"
    assert len(rows) == 1 + 13


def test_checks_that_do_not_pass_stand_above_the_figures() -> None:
    title, rows, _ = _parsed(audit_table(assessed()))
    assert title.startswith("Fail: ")
    assert rows[:3] == [
        ["about", "outcome", "check", "finding"],
        [LARGE, "pass", "all", "–"],
        [SMALL, "fail", "check of kappa", "finding of kappa"],
    ]


def test_the_reference_stands_in_the_cells_and_a_note_behind_the_table() -> None:
    found = assessed()
    found["students"][0]["figures"]["loyalty"]["label"]["reference"] = estimate(0.9)
    found["students"][0]["assessment"]["reference"] = "agreement with the teacher: less in response"
    text = audit_table(found)
    assert "0.935 (0.914–0.956), n 872, reference 0.900" in text
    assert f"{LARGE}: agreement with the teacher: less in response." in text


def test_a_figure_below_its_limit_is_marked() -> None:
    _, rows, _ = _parsed(audit_table(audit()))
    found = {row[0]: row[1:] for row in rows}["loyalty: saliency loyalty"]
    assert found == ["0.712 (0.691–0.733), n 868", "0.532 (0.511–0.553), n 868, below the limit 0.600"]


def test_a_limit_is_one_of_the_audited_rows_and_not_of_the_challenge() -> None:
    groups = {"loyalty": {"label": estimate(0.5, 200)}, "challenge": {"label": estimate(0.9, 200)}}
    failed = [{"student": SMALL, "figure": "label", "value": 0.5, "limit": 0.6}]
    found = audit_table(audit(failed=failed, students=[student(SMALL, figures=groups)]))
    assert found.count("below the limit 0.600") == 1
    assert without_groups(groups)["label"]["value"] == 0.5


def test_a_figure_may_be_failed_by_its_name_with_the_group() -> None:
    failed = [{"student": SMALL, "figure": "agreement.cosine", "value": 0.684, "limit": 0.7}]
    assert audit_table(audit(failed=failed)).count("below the limit 0.700") == 1


def test_a_figure_with_a_floor_shows_it() -> None:
    figures = {"loyalty": {"response": estimate(0.5, 200, floor=0.1, gain=0.444)}}
    _, rows, _ = _parsed(audit_table(audit(students=[student(figures=figures)])))
    assert rows[1] == ["loyalty: response loyalty", "0.500 (0.479–0.521), n 200, floor 0.100"]


def test_an_interval_with_a_negative_end_is_written_without_a_dash() -> None:
    figures = {"agreement": {"cosine": estimate(0.01)}}
    assert "0.010 (-0.011 to 0.031), n 872" in audit_table(audit(students=[student(figures=figures)]))


def test_what_is_missing_is_left_out() -> None:
    title, rows, _ = _parsed(audit_table(bare()))
    assert title == "Audit"
    assert rows == [["", "s"], ["new group: a new figure", "0.500 (0.479–0.521), n 872"]]
    assert "|" not in audit_table({})
    assert "prediction loyalty" in audit_table(regression()[0])


def test_students_of_one_name_are_numbered_and_no_folder_is_named() -> None:
    table = audit_table(audit(students=[student("/home/ann/a/final"), student("/home/ann/b/final")]))
    assert _parsed(table)[1][0] == ["", "final", "final (2)"]
    assert "ann" not in table


def test_hostile_text_stays_text() -> None:
    content, _ = hostile()
    text = audit_table(content)
    text.encode()
    title, rows, tokens = _parsed(text)
    assert "<script>alert(1)</script>" in title
    of_figures = [row for row in rows if len(row) == 3]
    assert of_figures[0][1] == "<script>alert(1)</script>"
    assert {len(row) for row in rows} == {3, 4}, "the checks have a column more"
    assert not _kinds(tokens) & {"html_block", "html_inline", "link_open", "image", "code_inline", "fence"}


@given(st.text(st.characters(exclude_categories=())))
@settings(max_examples=150)
def test_any_text_keeps_the_form_of_the_table(text: str) -> None:
    named = student(text, figures={"loyalty": {text: estimate(0.5)}})
    table = audit_table(audit(verdict=text, students=[named], failed=[], data={"task": text}))
    table.encode()
    _, rows, tokens = _parsed(table)
    assert [len(row) for row in rows] == [2, 2]
    assert _kinds(tokens) <= {
        "heading_open", "heading_close", "inline", "text", "text_special", "paragraph_open", "paragraph_close",
        "softbreak", "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open",
        "tr_close", "th_open", "th_close", "td_open", "td_close",
    }  # fmt: skip
