"""What a notebook shows: escaped, with floors, and the dictionaries of before."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from gradistill.commands.run_result import AuditResult, RunResult
from gradistill.data.word_scores import WordScore
from gradistill.report.terminal import Explanation

LOYALTY = {"response": {"value": 0.75, "low": 0.7, "high": 0.8, "n": 50, "floor": 0.01}}
METRICS = {
    "task": "<b>reviews</b>", "method": "kd", "seed": 0, "positive": "1", "loyalty": LOYALTY,
    "teacher": {"layers": 6, "parameters": 22_713_986}, "teacher_eval": {"f1": 0.9},
    "student": {"layers": 3, "parameters": 17_390_594}, "eval": {"f1": 0.8},
}  # fmt: skip


def test_the_result_of_a_run_is_the_dictionary_that_it_was(tmp_path: Path) -> None:
    result = RunResult(METRICS, tmp_path)
    assert result == METRICS
    assert json.loads(json.dumps(result)) == METRICS
    assert type(result.metrics) is dict
    assert result.metrics == METRICS
    assert result.path == tmp_path
    assert pickle.loads(pickle.dumps(result)).path == tmp_path
    html = result._repr_html_()
    assert "kd on &lt;b&gt;reviews&lt;/b&gt;, seed 0" in html
    assert "<td>student</td><td>3</td><td>17,390,594</td><td>0.800</td>" in html
    assert "<td>response loyalty</td><td>0.750</td><td>0.700–0.800</td><td>50</td><td>0.010</td>" in html
    assert RunResult({}, tmp_path)._repr_html_() == "<p>no metrics</p>"  # of a process that is not the first


def test_an_audit_shows_its_verdict_and_an_explanation_its_words(tmp_path: Path) -> None:
    found = {"verdict": "passes <i>all</i>", "students": [{"name": "cut", "figures": {"loyalty": LOYALTY}}]}
    audit = AuditResult(found, tmp_path, "audit.html")
    assert audit.page == tmp_path / "audit.html"
    assert "passes &lt;i&gt;all&lt;/i&gt;" in audit._repr_html_()
    assert "<caption>cut</caption>" in audit._repr_html_()
    words = [WordScore("<good>", 4, 10, 1.0), WordScore("not", 0, 3, -0.5)]
    explained = Explanation(
        "m", ("not <good>!\x1b",), words, "yes", {"yes": 0.9}, None, "log_odds", "ig", None
    )
    html = explained._repr_html_()
    assert '<span style="background: rgba(217, 115, 13, 0.30)" title="-0.500">not</span> ' in html
    assert (
        '<span style="background: rgba(74, 144, 217, 0.60)" title="+1.000">&lt;good&gt;</span>!\\x1b' in html
    )
    assert "<strong>yes (0.90)</strong>" in html
