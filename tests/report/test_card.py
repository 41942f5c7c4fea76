"""The model card, read back with a YAML parser and a Markdown parser."""

from __future__ import annotations

import re
from math import nan
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from gradistill.auditing.figure_meanings import meanings_of
from gradistill.errors import GradistillError
from gradistill.report import model_card as card
from gradistill.report.model_card import markdown_text, model_card
from hostile import with_hostile

FIGURE = {"value": 0.912, "low": 0.88, "high": 0.94, "n": 408}


def _facts(**changes: Any) -> dict[str, Any]:
    return {
        "task": "mrpc",
        "method": "adkd",
        "seed": 7,
        "student": {"name": "small", "layers": 3, "hidden": 384, "parameters": 17_000_123},
        "teacher": {"name": "owner/teacher", "layers": 12, "hidden": 768, "parameters": 109_483_778},
        "eval": {"accuracy": 0.8123, "f1": 0.87},
        "teacher_eval": {"accuracy": 0.86, "f1": None},
        "loyalty": {
            "label": FIGURE,
            "probability": FIGURE,
            "saliency": FIGURE | {"skipped": 3, "method": "gradient_x_input"},
            "prediction": None,
        },
        "timing": {"signals_s": 1.5, "train_s": 32.1, "examples_per_s": 200.0, "peak_rss_mb": 1200},
        "versions": {"gradistill": "0.1.0", "torch": "2.13.0+cpu"},
        "recipe": {"method": "adkd", "objectives": {"adkd": {"weight": 10.0, "k": None}}},
    } | changes


def _front_matter(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    return yaml.safe_load(found.group(1))


def _tables(text: str) -> list[list[list[str]]]:
    """All tables as a Markdown parser sees them: rows of cells of plain text."""
    body = text.split("\n---\n", 1)[1]
    tables: list[list[list[str]]] = []
    for token in (tokens := iter(MarkdownIt("commonmark").enable("table").parse(body))):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            tables[-1][-1].append("".join(part.content for part in next(tokens).children or []))
    return tables


def _headings(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1])
    return [tokens[k + 1].content for k, token in enumerate(tokens) if token.type == "heading_open"]


def test_a_constant_prediction_has_a_column_where_it_was_measured():
    known = _facts(
        constant_eval={"accuracy": 0.684, "f1": 0.812}, test={"f1": 0.7}, constant_test={"f1": 0.8}
    )
    assert "| f1 | 0.870 | – | 0.812 |" in model_card(known)
    assert "| f1 | 0.700 | – | 0.800 |" in model_card(known)
    assert "constant" not in model_card(_facts())


def test_front_matter():
    data = {"source": "mrpc", "rows": {"train": 3576}, "text_columns": ["a", "b"]}
    assert _front_matter(model_card(_facts(license="apache-2.0", data=data))) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["knowledge-distillation", "gradistill", "adkd"],
        "license": "apache-2.0",
        "base_model": ["owner/teacher"],
        "base_model_relation": "finetune",
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": "small",
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "mrpc"},
                        "dataset": {"name": "mrpc", "type": "mrpc", "split": "validation"},
                        "metrics": [
                            {"type": "accuracy", "value": 0.8123, "name": "accuracy"},
                            {"type": "f1", "value": 0.87, "name": "f1"},
                        ],
                    }
                ],
            }
        ],
    }
    local = _front_matter(model_card(_facts(teacher={"name": "teacher"}, eval={"f1": None})))
    assert {*local} == {"library_name", "pipeline_tag", "tags", "license"}
    assert local["license"] == "unknown"


def test_the_hubs_own_reader_finds_the_results():
    card = ModelCard(model_card(_facts(eval={"spearman": 0.5})))
    assert card.data.license == "unknown"
    (result,) = card.data.eval_results or []
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("spearmanr", 0.5, "validation")


def test_the_data_section():
    data = {
        "source": "/home/jane/mrpc",
        "rows": {"train": 3576, "validation": 500},
        "text_columns": ["a", "b"],
    }
    texts = {"max_length": 128, "train": {"rows": 320}, "validation": {"rows": 500}}  # rows with their copies
    recipe = {"training": {"max_train_rows": 64, "augment": 4}}
    text = model_card(_facts(data=data, texts=texts, recipe=recipe))
    assert (
        "mrpc, text from a and b. Rows: train 64 of 3,576, validation 500. Texts are cut at 128 tokens."
        in text
    )
    assert "jane" not in text
    windows = model_card(_facts(data=data, texts=texts | {"windows": "max", "window_overlap": 16}))
    assert "read in windows of 128 tokens that share 16 at most; figures are of the maximum" in windows
    assert "cut at" not in windows
    prompt = model_card(_facts(teacher_source={"kind": "", "template": "Review: {text}\nGood?"}))
    assert "distilled from owner/teacher, which read each row in the prompt: Review: {text} Good?\n" in prompt


def test_tables():
    models, metrics, loyalty, timing = _tables(model_card(_facts()))
    assert models[1:] == [
        ["name", "small", "owner/teacher"],
        ["layers", "3", "12"],
        ["hidden width", "384", "768"],
        ["parameters", "17,000,123", "109,483,778"],
    ]
    assert metrics == [["metric", "student", "teacher"], ["accuracy", "0.812", "0.860"], ["f1", "0.870", "–"]]
    assert loyalty[1:] == [
        [name, "0.912", "0.880 to 0.940", "408"] for name in ("label", "probability", "saliency")
    ]
    assert timing[-1] == ["peak_rss_mb", "1,200"]


def test_recipe_and_loading_are_code():
    text = model_card(_facts())
    fences = [t for t in MarkdownIt().parse(text.split("\n---\n", 1)[1]) if t.type == "fence"]
    assert [fence.info for fence in fences] == ["python", "yaml"]
    compile(fences[0].content, "card", "exec")
    assert "AutoModelForSequenceClassification.from_pretrained" in fences[0].content
    assert yaml.safe_load(fences[1].content) == _facts()["recipe"]


def test_a_finetuning_has_no_teacher():
    text = model_card(_facts(method="finetune", teacher=None, teacher_eval=None, loyalty=None))
    assert "teacher" not in text.lower()
    assert "| student" not in text
    assert _tables(text)[1] == [["metric", "model"], ["accuracy", "0.812"], ["f1", "0.870"]]
    assert "Loyalty" not in text


def test_a_regression_has_no_label_loyalty():
    loyalty = {"label": None, "probability": None, "saliency": None, "prediction": FIGURE}
    text = model_card(_facts(loyalty=loyalty))
    assert _tables(text)[2][1:] == [["prediction", "0.912", "0.880 to 0.940", "408"]]
    assert "Pearson" in text
    assert "Jensen" not in text
    assert "Spearman" not in text


def test_figures_that_are_not_defined():
    undefined = {"value": None, "low": None, "high": None, "n": 0, "skipped": 9, "method": "m"}
    text = model_card(_facts(eval={"accuracy": nan}, loyalty={"saliency": undefined}))
    _, metrics, loyalty, _ = _tables(text)
    assert metrics[1][:2] == ["accuracy", "–"]
    assert loyalty[1] == ["saliency", "–", "–", "0"]


def test_the_least_there_can_be():
    text = model_card({"task": "t", "method": "m", "student": {}})
    assert _headings(text) == ["Text classifier", "Models", "Use and limits", "How to load"]
    with pytest.raises(GradistillError, match="lack method, student"):
        model_card({"task": "t"})


def test_the_template_is_strict():
    with pytest.raises(UndefinedError):
        card.markdown_template("model_card.md.j2").render(task="t")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/jane/models/teacher", "teacher"),
        ("/home/jane doe/my models/the teacher/", "the teacher"),
        ("C:\\Users\\jane\\teacher", "teacher"),
        ("c:/Users/jane", "(local folder)"),
        ("/home/jane/", "(local folder)"),
        ("/Users/jane/..", "(local folder)"),
        ("~/teacher", "teacher"),
        ("~jane", "(local folder)"),
        ("../jane/teacher", "teacher"),
        ("runs/jane/teacher", "teacher"),
        ("\\\\server\\jane\\teacher", "teacher"),
        ("file:///home/jane/teacher", "teacher"),
        ("see /home/jane/teacher, or data:/home/jane/x.csv", "see teacher, or data:x.csv"),
        ("owner/teacher", "owner/teacher"),
        ("https://huggingface.co/owner/teacher", "https://huggingface.co/owner/teacher"),
        ("see https://huggingface.co/owner/teacher.", "see https://huggingface.co/owner/teacher."),
    ],
)
def test_paths_are_reduced(name, public):
    assert card.public_name(name) == public


def test_no_path_is_left_in_any_part():
    path = "/home/jane/secret/last"
    text = model_card(
        _facts(
            task=path, method=path, license=path, student={"name": path}, teacher={"name": path},
            eval={path: path}, timing={path: path}, versions={path: path},
            loyalty={"saliency": FIGURE | {"method": path, "skipped": 0}},
            recipe={path: [{"data": (path, f"from {path}")}]},
        )
    )  # fmt: skip
    assert "jane" not in text
    assert "secret" not in text


@with_hostile()
@settings(max_examples=30)
@given(text=st.text(max_size=20))
def test_hostile_text_breaks_neither_table_nor_front_matter_nor_fence(text):
    text = (
        "x|`y`\n---\ntags: [own]\n```\n# H\n|a|b|\n<script>&amp;[l](u)![i](u)**b**_c_\\" + text + "\x1b\u202e"
    )
    plain = _facts()
    shown = model_card(
        _facts(
            task=text, method=text, license=text, student=plain["student"] | {"name": text},
            teacher=plain["teacher"] | {"name": text}, eval={text: text, "f1": 0.5}, teacher_eval={text: 1},
            loyalty=plain["loyalty"] | {text: FIGURE}, timing={text: text}, versions={text: text},
            recipe={"note": text, text: [text]},
        )
    )  # fmt: skip
    matter = _front_matter(shown)
    assert list(matter) == ["library_name", "pipeline_tag", "tags", "license", "metrics", "model-index"]
    assert len(matter["tags"]) == 3
    assert [len(heading) > 0 for heading in _headings(shown)] == [True] * 7
    tables = _tables(shown)
    assert [(len(table), {len(row) for row in table}) for table in tables] == [
        (5, {3}), (3, {3}), (5, {4}), (2, {2})
    ]  # fmt: skip
    assert tables[0][1][1] == tables[0][1][2] == tables[3][1][0]
    assert "<script>" in tables[0][1][1]
    html = MarkdownIt("commonmark").enable("table").render(shown.split("\n---\n", 1)[1])
    prose = re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    assert not re.search(r"<(script|a|img|strong|em|code)\b", prose)
    assert not set(shown) & set("\x1b\u202e")


def test_the_hub_gets_every_metric_under_its_own_name() -> None:
    """Macro F1 is called f1 there: it took the place of F1."""
    scores = {"f1": 0.9, "macro_f1": 0.6, "accuracy": 0.8}
    matter = _front_matter(model_card(_facts(eval=scores)))
    assert matter["metrics"] == ["f1", "accuracy"]
    (entry,) = matter["model-index"]
    assert entry["results"][0]["metrics"] == [
        {"type": "f1", "value": 0.9, "name": "f1"},
        {"type": "f1", "value": 0.6, "name": "macro_f1"},
        {"type": "accuracy", "value": 0.8, "name": "accuracy"},
    ]


@pytest.mark.parametrize(
    ("kind", "loyalty", "scores"),
    [
        ("classes", ("label", "probability", "saliency", "response"), {}),
        ("scores", ("prediction", "saliency", "response"), {}),
        ("multi_label", ("label", "exact_match", "probability", "response"), {}),
        ("tokens", ("label", "probability", "span"), {"span_f1": 0.5}),
    ],
)
def test_figures_mean_in_a_card_what_they_mean_in_an_audit(kind, loyalty, scores) -> None:
    text = model_card(_facts(loyalty=dict.fromkeys(loyalty, FIGURE), eval={"accuracy": 0.8} | scores))
    shown = [line[2:] for line in text.split("## Loyalty")[1].splitlines() if line.startswith("- ")]
    assert shown == [markdown_text(f"{name}: {meanings_of(kind)[name]}") for name in loyalty]


def test_what_is_0_but_for_rounding_has_no_sign() -> None:
    assert "| accuracy | 0.000 |" in model_card(_facts(eval={"accuracy": -0.0001}))


def test_the_card_names_what_the_validation_rows_selected() -> None:
    selected, thresholds = "which also selected the checkpoint", "thresholds were chosen on it"
    recipe = {"training": {"arguments": {"load_best_model_at_end": False}}}
    for facts, shown in (
        (_facts(), (True, False)),
        (_facts(recipe=recipe), (False, False)),
        (_facts(recipe=None), (False, False)),
        (_facts(thresholds={"joy": 0.3}), (True, True)),
    ):
        text = model_card(facts)
        assert (selected in text, thresholds in text) == shown


def test_the_card_describes_the_figures_of_its_kind_of_task() -> None:
    prediction, labels = "changes of the prediction when", "changes of a label's log-odds when"
    loyalty = {"response": FIGURE, "saliency": FIGURE | {"skipped": 0, "method": "gradient_x_input"}}
    texts = [
        model_card(_facts(loyalty=loyalty | more))
        for more in ({"prediction": FIGURE}, {"label": FIGURE, "exact_match": FIGURE}, {"label": FIGURE})
    ]
    assert [prediction in text for text in texts] == [True, False, False]
    assert [labels in text for text in texts] == [False, True, False]
    assert ["teacher's label" in text for text in texts] == [False, False, True]


def test_a_card_of_a_model_alone_calls_it_so_in_every_table() -> None:
    facts = _facts(teacher=None, teacher_eval=None, loyalty=None, test={"accuracy": 0.8})
    heads = [table[0][:2] for table in _tables(model_card(facts)) if table[0][0] == "metric"]
    assert heads == [["metric", "model"]] * 2
