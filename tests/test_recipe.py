"""Recipes resolve to the authors' settings, say what is wrong with them, and survive a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradistill.data import TASKS
from gradistill.errors import RecipeError
from gradistill.objectives import all_objectives
from gradistill.recipe import Recipe, load_recipe, shipped_methods

# METHODS.md section 1: annealed, batch, lr, epochs, α, τ, β, K of 768
AUTHORS = {
    "cola": (False, 32, 4e-5, 10, 0.9, 1, 1, 768),
    "mnli": (True, 64, 4e-5, 6, 0.8, 3, 10, 768),
    "sst2": (False, 32, 5e-5, 6, 0.8, 2, 1, 768),
    "qnli": (False, 32, 4e-5, 6, 0.9, 3, 100, 768),
    "mrpc": (True, 16, 3e-5, 10, 0.9, 4, 10, 768),
    "qqp": (True, 32, 4e-5, 8, 1.0, 4, 50, 734),
    "rte": (False, 16, 2e-5, 12, 0.9, 2, 10, 700),
    "stsb": (False, 16, 5e-5, 8, 0.8, 3, 1, 640),
}


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("task", AUTHORS)
def test_adkd_resolves_to_the_authors_settings(task: str) -> None:
    annealed, batch, rate, epochs, alpha, tau, beta, kept = AUTHORS[task]
    recipe = load_recipe("adkd", task=task)
    training, parts = recipe.training, recipe.objectives
    assert (training.batch_size, training.learning_rate, training.epochs) == (batch, rate, epochs)
    assert training.max_length is None  # as the teacher was trained: by default 128 tokens, as theirs
    assert set(parts) == {"hard_label", "soft_label", "attribution_map"}
    assert parts["hard_label"].weight == pytest.approx(1 - alpha, abs=1e-12)
    soft, attribution = parts["soft_label"], parts["attribution_map"]
    assert (soft.weight, soft.objective.temperature, soft.objective.anneal) == (alpha, tau, annealed)
    assert soft.objective.divergence == "soft_cross_entropy"
    assert not soft.objective.times_temperature_squared
    assert (attribution.weight, attribution.objective.average) == (beta, "tokens")
    assert attribution.objective.view == ("all" if task == "mnli" else "gold")
    # Shares are written with four digits: an error of half of the last digit is 0.04 of 768 entries.
    assert attribution.objective.keep * 768 == pytest.approx(kept, abs=0.04)
    assert (recipe.student.embeddings, recipe.student.dropout) == ("own", "keep")


@pytest.mark.parametrize("task", AUTHORS)
@pytest.mark.parametrize("method", ["kd", "pkd", "finetune"])
def test_what_builds_below_shares_the_settings(method: str, task: str) -> None:
    recipe, adkd = load_recipe(method, task=task), load_recipe("adkd", task=task)
    assert recipe.training == adkd.training
    assert recipe.needs_teacher == (method != "finetune")
    if method != "finetune":
        assert recipe.objectives["soft_label"] == adkd.objectives["soft_label"]


def test_a_prompt_of_the_teacher_survives_a_round_trip(tmp_path: Path) -> None:
    template = "Review: {text}\n  {{is}} it: 'good'?\n"
    recipe = load_recipe("kd").with_template(template)
    again = load_recipe(file=written(tmp_path, recipe.as_yaml()))
    assert (again, again.teacher.template) == (recipe, template)
    assert "teacher" not in load_recipe("kd").as_dict()  # as earlier versions wrote it
    with pytest.raises(RecipeError, match="it holds no field"):
        load_recipe("kd", changes=["teacher.template=Is it good?"])


@pytest.mark.parametrize("method", ["gkd", "gkd_cls"])
@pytest.mark.parametrize("task", [None, "sst2", "qqp", "qnli", "mnli"])
def test_gradient_kd_has_its_own_defaults(method: str, task: str | None) -> None:
    recipe = load_recipe(method, task=task)
    training, parts = recipe.training, recipe.objectives
    assert (training.learning_rate, training.batch_size, training.epochs) == (5e-5, 32, 4)
    assert (recipe.student.embeddings, recipe.student.dropout) == ("frozen", "none")
    soft = parts["soft_label"]
    assert (parts["hard_label"].weight, soft.weight, soft.objective.temperature) == (0.5, 0.5, 5)
    assert soft.objective.divergence == "kl"
    assert soft.objective.times_temperature_squared
    gradient = parts["gradient_alignment"].objective
    assert (gradient.view, gradient.average) == ("own", "tokens")
    assert gradient.sites == (("embedding_output",) if method == "gkd" else ("embedding_output", "cls"))
    assert ("patience" in parts) == (method == "gkd_cls")


@pytest.mark.parametrize("task", [None, *TASKS])
@pytest.mark.parametrize("method", shipped_methods())
def test_a_resolved_recipe_goes_through_a_file_unchanged(
    method: str, task: str | None, tmp_path: Path
) -> None:
    recipe = load_recipe(method, task=task)
    assert (recipe.method, recipe.task) == (method, task)
    assert recipe.title
    assert recipe.summary
    assert recipe.source
    assert load_recipe(file=written(tmp_path, recipe.as_yaml())) == recipe


def test_a_changed_recipe_goes_through_a_file_unchanged(tmp_path: Path) -> None:
    changes = [
        "objectives.soft_label=null", "objectives.attribution_map.norm=1", "objectives.attribution_map.every=4",
        "training.arguments.weight_decay=0.1",
        "student.layer_map=[1, 3]", "student.layers=2", "training.learning_rate=2e-4",
    ]  # fmt: skip
    recipe = load_recipe("adkd", task="qqp", changes=changes)
    assert "soft_label" not in recipe.objectives
    assert recipe.objectives["attribution_map"].every == 4
    assert recipe.student.layer_map == (1, 3)
    assert recipe.training.learning_rate == 2e-4
    assert load_recipe(file=written(tmp_path, recipe.as_yaml())) == recipe


@pytest.mark.parametrize("method", shipped_methods())
def test_without_the_authors_settings_every_task_is_alike(method: str) -> None:
    plain = load_recipe(method)
    alike = load_recipe(method, task="rte", authors_settings=False)
    assert alike.model_copy(update={"task": None}) == plain


def test_later_wins(tmp_path: Path) -> None:
    file = written(tmp_path, "base: adkd\ntraining: {epochs: 3, batch_size: 8}\n")
    plain = load_recipe("adkd", task="rte").training
    assert (plain.epochs, plain.batch_size) == (12, 16)
    own = load_recipe(file=file, task="rte")
    assert own.method == "adkd"
    assert (own.training.epochs, own.training.batch_size, own.training.learning_rate) == (3, 8, 2e-5)
    last = load_recipe(file=file, task="rte", changes=["training.epochs=2", "training.epochs=1"]).training
    assert (last.epochs, last.batch_size) == (1, 8)


def test_a_recipe_of_ones_own_needs_no_shipped_one(tmp_path: Path) -> None:
    recipe = load_recipe(file=written(tmp_path, "method: mine\nobjectives: {patience: {weight: 2}}"))
    assert recipe.method == "mine"
    assert {name: part.weight for name, part in recipe.objectives.items()} == {"patience": 2}
    assert recipe.needs_teacher


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {}", r"(?s)unknown key 'trainin'.*did you mean 'training'"),
        ("training: {epoch: 3}", r"(?s)unknown key 'training.epoch'.*did you mean 'epochs'"),
        (
            "objectives: {soft_label: {temprature: 3}}",
            r"(?s)objectives.soft_label.temprature'.*'temperature'",
        ),
        ("objectives: {soft_label: {wieght: 3}}", r"(?s)soft_label.wieght'.*did you mean 'weight'"),
        ("objectives: {hard_label: {source: x}}", r"(?s)hard_label.source'.*Known: end, every, fade, share"),
        ("objectives: {soft_labels: {weight: 3}}", r"(?s)no objective 'soft_labels'.*'soft_label'"),
        ("objectives: {7: {weight: 3}}", r"(?s)has a key 7.*quote it"),
        ("objectives: {soft_label: 3}", r"(?s)objectives.soft_label is 3.*\{weight: 1\}"),
        ("objectives: {soft_label: {temperature: cold}}", r"soft_label.temperature is 'cold'"),
        ("objectives: {soft_label: {weight: heavy}}", r"soft_label.weight is 'heavy'"),
        ("objectives: {soft_label: {weight: .nan}}", r"soft_label.weight is nan"),
        ("objectives: {soft_label: {every: 0}}", r"(?s)soft_label.every is 0.*greater than or equal to 1"),
        ("objectives: {soft_label: {every: 1.5}}", r"(?s)soft_label.every is 1.5.*integer"),
        ("objectives: {soft_label: {share: 0}}", r"(?s)soft_label.share is 0.*greater than 0"),
        ("objectives: {soft_label: {share: 2}}", r"(?s)soft_label.share is 2.*less than or equal to 1"),
        ("objectives: {soft_label: {evry: 2}}", r"(?s)soft_label.evry'.*did you mean 'every'"),
        (
            "objectives: {soft_label: {every: 4}, hard_label: {every: 2}}",
            r"(?s)nothing would be trained: .*soft_label runs every 4 steps.*set every: 1",
        ),
        ("training: {learning_rate: -1}", r"training.learning_rate is -1"),
        ("training: {epochs: .inf}", r"training.epochs is inf"),
        (
            "student: {layer_map: frist}",
            r"(?s)student.layer_map is 'frist'.*'uniform', 'skip', 'first' or 'last'.*did you mean 'first'",
        ),
        ("training: {seed: 4294967296}", r"(?s)training.seed is 4294967296.*equal to 4294967295"),
        ("student: [1]", r"recipe's student is \[1\]"),
        ("method: [kd", r"(?s)is not valid YAML.*expected .* in line 1.*correct the file at that place"),
        ("when: 2001-02-30", r"is not valid YAML"),
        ("- 1", r"(?s)holds a list.*keys such as method"),
        ("", r"holds a NoneType"),
        ("tasks: 5", r"(?s)tasks hold 5.*settings by task"),
        ("tasks: {sst2: 5}", r"tasks hold 5"),
        ("base: adkdd\nobjectives: {hard_label: {}}", r"(?s)no method 'adkdd'.*did you mean 'adkd'"),
        ("objectives: {hard_label: null, soft_label: null}", r"no objectives"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    method = None if "base" in text else "kd"
    with pytest.raises(RecipeError, match=message):
        load_recipe(method, file=written(tmp_path, text), task="sst2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epochs", r"(?s)--set 'training.epochs'.*key.key=value.*--set training.epochs=3"),
        ("=3", r"--set '=3'"),
        ("training.epochs=[", r"(?s)the value is not valid YAML.*quote it"),
        ("training.epochs=2001-02-30", r"the value is not valid YAML"),
        ("training.epochs=many", r"training.epochs is 'many'"),
        ("training.ephocs=3", r"did you mean 'epochs'"),
        ("objectives=5", r"the recipe has no objectives"),
        ("objectives.nothing.weight=1", r"there is no objective 'nothing'"),
        ("objectives.soft_label.temperature=.inf", r"soft_label.temperature is inf"),
        ("base=adkd", r"(?s)base is fixed before.*--method, --task, or a --recipe file"),
        ("method=adkd", r"method is fixed before"),
        ("task=rte", r"task is fixed before"),
        ("tasks.rte.training.epochs=1", r"tasks is fixed before"),
        ("training.epochs=yes", r"(?s)training\.epochs is a truth value.*a number; YAML reads yes"),
        ("student.layers=on", r"student\.layers is a truth value"),
        ("training.max_train_rows=no", r"training\.max_train_rows is a truth value"),
        ("student.layer_map=[1,true]", r"student\.layer_map\.1 is a truth value"),
        ("objectives.soft_label.temperature=true", r"objectives\.soft_label\.temperature is a truth value"),
        ("objectives.soft_label.weight=false", r"objectives\.soft_label\.weight is a truth value"),
    ],
)
def test_a_change_that_cannot_be(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("kd", changes=[change])


@pytest.mark.parametrize("key", ["method", "base"])
def test_a_file_of_another_method_is_refused(key: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"{key}: adkd\n")
    with pytest.raises(
        RecipeError, match=r"(?s)method is 'kd', and the recipe .*mine.yaml.*'adkd'.*leave --method out"
    ):
        load_recipe("kd", file=file)
    assert load_recipe("adkd", file=file) == load_recipe("adkd")


def test_a_file_can_leave_the_settings_of_tasks_behind(tmp_path: Path) -> None:
    recipe = load_recipe(file=written(tmp_path, "base: adkd\ninherit_tasks: false\n"), task="rte")
    assert recipe.training == load_recipe("adkd").training != load_recipe("adkd", task="rte").training


def test_gkd_takes_the_first_blocks_where_its_authors_did() -> None:
    assert load_recipe("gkd", task="sst2").student.layer_map == "first"
    assert load_recipe("gkd_cls", task="qnli").student.layer_map == "first"
    assert load_recipe("gkd", task="mrpc").student.layer_map == "uniform"
    assert load_recipe("gkd", task="sst2", authors_settings=False).student.layer_map == "uniform"


def test_a_method_must_be_known() -> None:
    with pytest.raises(RecipeError, match=r"(?s)there is no method 'akd'.*did you mean 'adkd'"):
        load_recipe("akd")
    with pytest.raises(RecipeError, match=r"(?s)no method was named.*adkd.*--method or --recipe"):
        load_recipe()


def test_a_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)nowhere.yaml cannot be read.*check the path"):
        load_recipe(file=tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"method: \xe9")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(file=tmp_path / "latin.yaml")


_KEYS = st.sampled_from(
    ["method", "base", "task", "tasks", "student", "training", "objectives", "weight", "sst2", "kd", "layers",
     "epochs", "arguments", "layer_map", "inherit_tasks", *all_objectives()]
) | st.integers()  # fmt: skip
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["kd", "skip"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=80) | st.dictionaries(_KEYS, _VALUES, max_size=4).map(
    lambda raw: yaml.safe_dump(raw, allow_unicode=True)
)


@given(text=_TEXTS, method=st.sampled_from([None, "kd"]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_recipe_or_a_recipe_error(text: str, method: str | None, tmp_path: Path) -> None:
    try:
        recipe = load_recipe(method, file=written(tmp_path, text), task="sst2")
    except RecipeError:
        return
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objectives.soft_label.start=0.5", "objectives.hard_label.start=0.4"], "from 50% to 100%"),
        (["objectives.soft_label.end=0.5", "objectives.hard_label.end=0.9"], "close the gap between stages"),
        (
            ["objectives.soft_label.start=0.7", "objectives.soft_label.end=0.7"],
            "^objectives.soft_label: start 0.7 is not below",
        ),
        (["objectives.soft_label.start=1"], "less than 1"),
    ],
)
def test_stages_that_leave_steps_idle_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("kd", changes=changes)


def test_a_recipe_without_any_weight_is_refused() -> None:
    without = [f"objectives.{name}.weight=0" for name in ("soft_label", "hard_label")]
    with pytest.raises(RecipeError, match="the weight of hard_label and soft_label is 0"):
        load_recipe("kd", changes=without)
    assert load_recipe("kd", changes=without[:1]).objectives["soft_label"].weight == 0


def test_stages_that_meet_are_taken() -> None:
    recipe = load_recipe("kd", changes=["objectives.soft_label.end=0.5", "objectives.hard_label.start=0.5"])
    assert recipe.objectives["soft_label"].runs_at(3, 0.49)
    assert not recipe.objectives["hard_label"].runs_at(3, 0.49)
    assert not recipe.objectives["soft_label"].runs_at(3, 0.5)


def test_later_settings_at_their_defaults_change_no_recipe_of_an_earlier_version() -> None:
    """Unfinished runs and the lines of a bench are known by their recipe. ``rationale`` has a rule of its own now."""
    plain = load_recipe("rationale", changes=["compute.gradient_conflict=off"]).as_dict()
    assert plain["training"].keys() == {
        "learning_rate", "epochs", "batch_size", "max_length", "seed", "max_train_rows", "checkpoint_minutes",
        "arguments",
    }  # fmt: skip
    assert plain["compute"].keys() == {"trim_last_block", "share_views", "pad_to_max_length"}
    changes = ["training.average_weights=0.3", "training.augment=1", "compute.gradient_conflict=cap"]
    changed = load_recipe("rationale", changes=[*changes, "compute.gradient_cap=2.0"])
    assert changed.as_dict()["training"]["average_weights"] == 0.3
    assert changed.as_dict()["compute"]["gradient_cap"] == 2.0
    assert load_recipe("rationale", changes=changes[2:]).as_dict()["compute"]["gradient_conflict"] == "cap"


@pytest.mark.parametrize("method", shipped_methods())
def test_gradients_of_our_own_gradient_methods_alone_give_way(method: str) -> None:
    """Those of the papers stay as the papers have them."""
    ours = method in ("rationale", "rationale_states", "coalition_rationale")
    assert load_recipe(method).compute.gradient_conflict == ("auto" if ours else "off")


def test_a_list_of_layers_settles_how_many() -> None:
    for change, layers in (("[1, 3]", 2), ("uniform", None), ("last", None)):
        assert load_recipe("kd", changes=[f"student.layer_map={change}"]).student.layers == layers
    both = load_recipe("kd", changes=["student.layer_map=[1, 3]", "student.layers=3"]).student
    assert both.layers == 3  # which does not fit: the student refuses it
