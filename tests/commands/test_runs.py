"""From names to a run folder: everything that a user finds there, and that plain transformers opens it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from gradistill.commands import loyalty_sample
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.guarded_training import saving
from gradistill.commands.prepared_run import build_student
from gradistill.commands.run_record import shown_name
from gradistill.errors import GradistillError, RecipeError
from gradistill.models.input_limits import Limits
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.probe import Probe
from gradistill.recipe import load_recipe, shipped_methods
from gradistill.recipe.schema import StudentSettings
from slow import slow
from small import logged

FILES = [
    ".gradistill.json", "README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip
KEYS = {
    "data",
    "positive",
    "overlap",
    "warnings",
    "task",
    "texts",
    "method",
    "seed",
    "student",
    "teacher",
    "eval",
    "teacher_eval",
    "constant_eval",
    "test",
    "teacher_test",
    "constant_test",
    "loyalty",
    "timing",
    "versions",
    "inputs",
}
EVERY = [(method, "two") for method in shipped_methods()] + [
    (method, kind) for method in ("adkd", "gkd_cls") for kind in ("three", "score")
]
SOME = [("coalition_minilm", "two"), ("gkd_cls", "three"), ("adkd", "score")]
"""``make test`` runs these; that every method trains is in tests/training."""


@pytest.mark.parametrize(
    ("method", "kind"),
    [case if case in SOME else slow(*case) for case in EVERY],
)
def test_a_run_folder_holds_all_that_is_promised(method: str, kind: str, small: Any, tmp_path: Path) -> None:
    output = tmp_path / "run"
    metrics = small.distilled(method, kind, output, "student.layers=2")
    assert sorted(path.name for path in output.iterdir()) == FILES  # no checkpoints, no pickles
    assert json.loads((output / "metrics.json").read_text()) == metrics
    gradients = any(term.objective.second_order for term in load_recipe(method).objectives.values())
    assert metrics.keys() == KEYS | ({"gradient_balance"} if gradients else set())
    if gradients:
        balance = metrics["gradient_balance"]
        assert balance["ratio"] == median(balance["ratios"])
        assert balance["capped_from_step"] is None
    assert (metrics["method"], metrics["student"]["layers"], metrics["teacher"]["layers"]) == (method, 2, 3)
    assert metrics["timing"].keys() == {"signals_s", "train_s", "examples_per_s", "peak_rss_mb"}
    assert (metrics["timing"]["signals_s"] > 0) == (method != "finetune")
    present = {name for name, entry in metrics["loyalty"].items() if isinstance(entry, dict)}
    own = {"prediction"} if kind == "score" else {"label", "probability"}
    assert present == own | {"response", "saliency"}
    for name in present:
        entry = metrics["loyalty"][name]
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["n"] == (loyalty_sample.RESPONSE_ROWS if name == "response" else 10)
        if entry["floor"] < 1:
            assert entry["gain"] == pytest.approx((entry["value"] - entry["floor"]) / (1 - entry["floor"]))
    written = load_recipe(file=output / "recipe.yaml")
    changes = ["training.epochs=1", "training.batch_size=8", "student.layers=2"]
    assert written == load_recipe(method, changes=changes).with_length(metrics["texts"]["max_length"])
    assert "## Loyalty to the teacher" in (output / "README.md").read_text(encoding="utf-8")


def test_the_student_opens_without_gradistill_and_predicts_the_same(small: Any, tmp_path: Path) -> None:
    output, answer = tmp_path / "run", tmp_path / "logits.json"
    small.distilled("adkd", "two", output)
    text = "the film was very great ."
    program = (
        "import json, sys\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f"model = AutoModelForSequenceClassification.from_pretrained({str(output)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(output)!r})\n"
        f"logits = model(**tokenizer({text!r}, return_tensors='pt')).logits[0].tolist()\n"
        "printed = {'logits': logits, 'attention': model.config._attn_implementation,"
        " 'ours': any(m.split('.')[0] == 'gradistill' for m in sys.modules), 'labels': model.config.id2label}\n"
        f"open({str(answer)!r}, 'w').write(json.dumps(printed))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(answer.read_text())
    assert not printed["ours"]
    assert printed["attention"] == "sdpa"  # the family's default, not the eager one of training
    assert list(printed["labels"].values()) == ["negative", "positive"]
    model, _ = load_classifier(output)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        here = model.eval()(**load_tokenizer(output)(text, return_tensors="pt")).logits[0]
    # eager here and fused there add the same float32 terms in another order
    torch.testing.assert_close(torch.tensor(printed["logits"]), here, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_student(small: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        small.distilled("adkd", "two", tmp_path / name, "training.seed=3")
    small.distilled("adkd", "two", tmp_path / "other", "training.seed=4")
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other")}
    assert weights["one"] == weights["two"] != weights["other"]


def test_a_student_of_a_checkpoint_with_its_own_width(small: Any, tmp_path: Path) -> None:
    from families import build

    narrow = tmp_path / "narrow"
    build("bert", hidden_size=8, num_hidden_layers=1).bert.save_pretrained(narrow)
    load_tokenizer(small.base).save_pretrained(narrow)
    metrics = small.distilled("adkd", "three", tmp_path / "run", f"student.checkpoint={narrow}")
    assert (metrics["student"]["hidden"], metrics["teacher"]["hidden"]) == (8, 16)
    with pytest.raises(GradistillError, match=r"\(64, 16\) in the teacher, and \(64, 8\) in the student"):
        small.distilled("gkd", "three", tmp_path / "refused", f"student.checkpoint={narrow}")
    assert not (tmp_path / "refused" / "model.safetensors").exists()


def test_what_cannot_be_a_student_is_refused_before_training(small: Any, tmp_path: Path) -> None:
    from wordpiece import tokenizer

    with pytest.raises(
        RecipeError, match=r"(?s)A student checkpoint is given, and a width.*drop student.width"
    ):
        small.distilled("kd", "two", tmp_path / "a", f"student.checkpoint={small.base}", "student.width=8")
    other = tmp_path / "other"
    load_classifier(small.teachers["two"])[0].save_pretrained(other)
    tokenizer().save_pretrained(other)
    with pytest.raises(
        RecipeError, match=r"(?s)\[CLS\] states cannot be compared.*objectives among attribution_map, "
    ):
        small.distilled("pkd", "two", tmp_path / "b", f"student.checkpoint={other}")
    with pytest.raises(GradistillError, match=r"(?s)5.*3"):
        small.distilled("kd", "two", tmp_path / "c", "student.layers=5", "student.layer_map=skip")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_a_recipe_with_a_teacher_does_not_fine_tune(small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)'kd' needs a teacher.*gradistill distill"):
        finetune(str(small.base), small.choice("two"), tmp_path / "run", load_recipe("kd"))


def test_what_is_left_out_is_reported(small: Any, tmp_path: Path) -> None:
    heard: list[str] = []
    changes = ("training.max_train_rows=12", "training.max_length=6")
    with logged(heard):
        metrics = small.distilled("kd", "two", tmp_path / "run", *changes)
    assert "training on 12 of 20 rows" in heard
    assert any(
        line.startswith("train: ") and "are cut at 6 tokens (the longest has 10)" in line for line in heard
    )
    assert metrics["loyalty"]["label"]["n"] == 10


def test_a_command_probes_each_model_once(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer and the evaluation, which are also used without a command, look for themselves."""
    found: list[tuple[str, str, int]] = []
    for kind in (Probe, Limits):
        find = kind.find

        def counted(model: Any, kind: Any = kind, find: Any = find) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith(("gradistill.commands", "gradistill.models.loaded_model")):
                found.append((kind.__name__, caller, model.config.num_hidden_layers))
            return find(model)

        monkeypatch.setattr(kind, "find", counted)
    small.distilled("adkd", "two", tmp_path / "run", "student.layers=2")
    assert sorted((kind, layers) for kind, _, layers in found) == [
        ("Limits", 2), ("Limits", 3), ("Probe", 2), ("Probe", 3),
    ]  # fmt: skip


class _Tracker(TrainerCallback):
    """Keeps what a run logs, and a file where TensorBoard has its own."""

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logged |= logs
        folder = Path(args.output_dir) / "runs" / "today"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events").write_text("\n".join(sorted(self.logged)))


def test_trackers_get_terms_and_loyalties_and_their_files_stay(small: Any, tmp_path: Path) -> None:
    tracker, output = _Tracker(), tmp_path / "run"
    recipe = load_recipe(
        "kd", changes=["student.layers=2", "training.epochs=1", "training.arguments.logging_steps=1"]
    )
    metrics = distill(str(small.teachers["two"]), small.choice("two"), output, recipe, callbacks=[tracker])
    response = metrics["loyalty"]["response"]
    assert tracker.logged["eval_response_loyalty"] == response["value"]
    assert tracker.logged["eval_response_loyalty_floor"] == response["floor"]
    assert {"raw/soft_label", "weighted/soft_label", "eval_accuracy"} <= tracker.logged.keys()
    assert "eval_label_loyalty" in (output / "runs" / "today" / "events").read_text().splitlines()
    distill(str(small.teachers["two"]), small.choice("two"), output, recipe, overwrite=True)
    assert not (output / "runs" / "today" / "events").exists(), "a log of the run that was replaced"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_weights_can_be_read_by_whom_the_configuration_can(small: Any, tmp_path: Path, umask: int) -> None:
    source = str(small.teachers["two"])
    before = os.umask(umask)
    try:
        saving(load_classifier(source)[0], load_tokenizer(source))(tmp_path)
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"] == 0o666 & ~umask


def test_a_run_of_a_reworded_method_is_the_same_run() -> None:
    recipe = load_recipe("kd")
    written = recipe.model_copy(update={"title": "Earlier words", "source": "a paper"}).as_written()
    assert recipe.settled_by(written).as_written() == written
    other = load_recipe("kd", changes=["training.epochs=7"])
    assert other.settled_by(written).as_written() != written


def test_records_keep_the_owner_of_a_model_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "teacher").mkdir(parents=True)
    names = ("google/bert_uncased", "runs/teacher", "/data/jane/teacher", "minilm-l6")
    assert [shown_name(name) for name in names] == ["google/bert_uncased", "teacher", "teacher", "minilm-l6"]


def test_a_layer_map_that_chooses_no_layers_is_named(small: Any) -> None:
    """Of a checkpoint whole, or of a student of its own width."""
    teacher, tokenizer = load_classifier(small.teachers["two"])[0], load_tokenizer(small.teachers["two"])
    reader = LoadedModel("teacher", "", teacher)
    for settings, idle in (
        (StudentSettings(checkpoint=str(small.base), layer_map="first"), True),
        (StudentSettings(layers=1, width=8, layer_map="last"), True),
        (StudentSettings(checkpoint=str(small.base), layers=1, layer_map="first"), False),
        (StudentSettings(layers=1, layer_map="last"), False),
        (StudentSettings(layers=1, width=8), False),
    ):
        printed: list[str] = []
        with logged(printed):
            build_student(reader, tokenizer, settings)
        assert any(f"layer_map {settings.layer_map} changes nothing" in line for line in printed) == idle
