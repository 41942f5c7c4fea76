"""A student is the teacher's own blocks, or a checkpoint with the teacher's labels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers as tr

from families import FAMILIES, build, collated
from gradistill.batch import Batch
from gradistill.errors import ModelError, RecipeError
from gradistill.models.layer_map import LayerMap, intermediate_pairs, map_layers
from gradistill.models.probe import Probe
from gradistill.models.student import (
    share_embeddings,
    silence_embedding_dropout,
    student_from_checkpoint,
    student_from_teacher,
)
from small import logged

INPUTS = Batch.of(collated()).inputs
NAMES = {"id2label": {0: "no", 1: "yes", 2: "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}}
BLOCK = re.compile(r"(.*?\.(?:layers?|h)\.)(\d+)(\..*)")
LAYER_TYPES = ["sliding_attention", "full_attention", "full_attention"]
WINDOW = {"qwen3": {"use_sliding_window": True, "sliding_window": 4}}

OF_LAYERS = [name for name in FAMILIES if name != "funnel"]
every_family = pytest.mark.parametrize("family", OF_LAYERS)


def in_the_teacher(key: str, taken: tuple[int, ...]) -> str:
    """The teacher's name of a student's weight, by hand."""
    if found := BLOCK.fullmatch(key):
        return f"{found[1]}{taken[int(found[2])] - 1}{found[3]}"
    return key


MAPS: list[tuple[LayerMap, tuple[int, ...]]] = [
    ("uniform", (2, 3)),
    ("uniform", (1, 2, 2, 3)),
    ("skip", (1, 2)),
    ("first", (1, 2)),
    ("last", (2, 3)),
    ((1, 3), (1, 3)),
    ("uniform", (3,)),
    ((1, 3, 3), (1, 3, 3)),
]
"""Layer maps of a teacher with three layers, and what they take."""


@pytest.mark.parametrize(
    ("family", "layer_map", "taken"),
    [(family, *known) for family in OF_LAYERS for known in (MAPS if family == "bert" else MAPS[:2])],
    ids=str,
)
def test_a_student_holds_the_mapped_blocks_and_all_else(
    family: str, layer_map: LayerMap, taken: tuple[int, ...]
) -> None:
    teacher = build(family)
    student = student_from_teacher(teacher, len(taken), layer_map=layer_map)
    assert type(student) is type(teacher)
    assert (student.config.num_hidden_layers, teacher.config.num_hidden_layers) == (len(taken), 3)
    assert Probe.find(student).layers == len(taken)
    theirs = teacher.state_dict()
    for key, weight in student.state_dict().items():
        assert torch.equal(weight, theirs[in_the_teacher(key, taken)]), key
    mine, others = set(student.parameters()), set(teacher.parameters())
    assert not mine & others


@every_family
def test_the_first_blocks_compute_what_they_compute_in_the_teacher(family: str) -> None:
    teacher = build(family)
    student = student_from_teacher(teacher, 2, layer_map="first").eval()
    with torch.no_grad():
        taught, own = (model(**INPUTS, output_hidden_states=True) for model in (teacher, student))
    for k in (0, 1):  # the last state may have passed the final norm
        assert torch.equal(own.hidden_states[k], taught.hidden_states[k])


@every_family
def test_a_student_of_full_depth_is_the_teacher(family: str) -> None:
    teacher = build(family)
    student = student_from_teacher(teacher, 3).eval()
    with torch.no_grad():
        assert torch.equal(student(**INPUTS).logits, teacher(**INPUTS).logits)


def test_labels_and_kind_of_attention_come_along() -> None:
    teacher = build("bert", attention="eager", **NAMES)
    student = student_from_teacher(teacher, 1)
    assert student.config.id2label == NAMES["id2label"]
    assert student.config._attn_implementation == "eager"
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)


def test_funnel_is_refused_with_a_way_out() -> None:
    with pytest.raises(ModelError, match=r"(?s)depth of a funnel cannot be set.*--student"):
        student_from_teacher(build("funnel"), 2)


def test_too_deep_a_student_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"(?s)layer map .skip. must choose 4 layers, and the teacher has 3.*at most 3"
    ):
        student_from_teacher(build("bert"), 4, layer_map="skip")


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", ["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        ("distilbert", ["dropout", "attention_dropout", "seq_classif_dropout"]),
        ("gpt2", ["resid_pdrop", "embd_pdrop", "attn_pdrop"]),
    ],
)
def test_no_dropout_means_none_anywhere(family: str, fields: list[str]) -> None:
    teacher = build(family)
    kept = [getattr(teacher.config, field) for field in fields]
    assert any(kept)
    assert [getattr(student_from_teacher(teacher, 2).config, field) for field in fields] == kept
    student = student_from_teacher(teacher, 2, dropout="none").train()
    assert not any(getattr(student.config, field) for field in fields)
    assert [getattr(teacher.config, field) for field in fields] == kept
    with torch.no_grad():
        assert torch.equal(student(**INPUTS).logits, student(**INPUTS).logits)


@every_family
def test_silent_embeddings_in_a_student_that_keeps_its_dropout(family: str) -> None:
    student = build(family).train()
    dropouts = [module for module in student.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.p = 0.5
    probe = Probe.find(student)
    silence_embedding_dropout(student)
    with torch.no_grad(), probe.tapped(student) as seen:
        for _ in range(2):
            student(**INPUTS)
    assert torch.equal(*seen)
    loud = sum(module.p == 0.5 for module in dropouts)
    assert loud or family in {"modernbert", "gpt2", "eurobert", "llama", "qwen2", "qwen3", "gemma3"}


@pytest.mark.parametrize("family", ["modernbert", "qwen3", "gemma3"])
def test_kinds_of_layers_are_cut_along(family: str) -> None:
    teacher = build(family, layer_types=LAYER_TYPES, **WINDOW.get(family, {}))
    student = student_from_teacher(teacher, 2, layer_map=(1, 3)).eval()
    assert student.config.layer_types == ["sliding_attention", "full_attention"]
    assert teacher.config.layer_types == LAYER_TYPES
    assert student(**INPUTS).logits.isfinite().all()


@pytest.mark.parametrize(("family", "taken", "lost"), [
    ("modernbert", (2, 3), True), ("modernbert", (1, 3), False), ("bert", (2, 3), False),
])  # fmt: skip
def test_a_weight_that_has_no_place_in_the_student_is_named(
    family: str, taken: tuple[int, ...], lost: bool
) -> None:
    with logged(lines := []):
        student_from_teacher(build(family), 2, layer_map=taken)
    assert any("layers.1.attn_norm.weight" in line for line in lines) is lost


@pytest.mark.parametrize("family", ["bert", "electra", "albert", "gpt2", "llama"])
@pytest.mark.parametrize("embeddings", ["copied", "frozen"])
def test_shared_embeddings(family: str, embeddings: str) -> None:
    teacher, student = build(family, seed=1), build(family, seed=2)
    names = set(Probe.find(teacher).embedding_parameters)
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    share_embeddings(student, teacher, embeddings)
    theirs = dict(teacher.named_parameters())
    for name, weight in student.named_parameters():
        assert torch.equal(weight, theirs[name] if name in names else before[name])
        assert weight.requires_grad == (name not in names or embeddings == "copied")
        assert weight is not theirs[name]
    assert all(weight.requires_grad for weight in theirs.values())


def test_own_embeddings_stay() -> None:
    teacher, student = build("bert", seed=1), build("bert", seed=2)
    share_embeddings(student, teacher, "own")
    assert not torch.equal(*(m.bert.embeddings.word_embeddings.weight for m in (teacher, student)))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            lambda: build("bert", hidden_size=8),
            r"word_embeddings.weight is \(64, 16\) in the teacher, and \(64, 8\)",
        ),
        (lambda: build("llama"), r"(?s)and missing in the student.*set student.embeddings to own"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(student: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        share_embeddings(student(), build("bert"), "frozen")


def saved_encoder(folder: Path, **changes: int) -> Path:
    build("bert", seed=5, num_hidden_layers=2, **changes).bert.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("width", [16, 8])
def test_a_student_from_a_checkpoint(tmp_path: Path, width: int) -> None:
    teacher = build("bert", **NAMES)
    folder = saved_encoder(tmp_path, hidden_size=width)
    student = student_from_checkpoint(folder, teacher)
    probe = Probe.find(student)
    assert (probe.layers, probe.width, probe.labels) == (2, width, 3)
    assert student.config.id2label == NAMES["id2label"]
    assert student.config.problem_type == "single_label_classification"
    saved = tr.BertModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(student.state_dict()[f"bert.{key}"], weight) for key, weight in saved.items())
    if width == 16:
        assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    else:
        assert student.classifier.weight.shape == (3, 8)


def test_a_head_of_other_labels_gives_way_to_the_teachers(tmp_path: Path) -> None:
    teacher = build("bert", **NAMES)
    build("bert", labels=5, seed=5).save_pretrained(tmp_path)
    student = student_from_checkpoint(tmp_path, teacher)
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)


def test_a_checkpoint_for_a_regression(tmp_path: Path) -> None:
    teacher = build("bert", labels=1)
    student = student_from_checkpoint(saved_encoder(tmp_path), teacher)
    assert (student.config.num_labels, student.config.problem_type) == (1, "regression")
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_no_dropout_in_a_checkpoint_of_any_family(tmp_path: Path, family: str) -> None:
    build(family).save_pretrained(tmp_path)
    student = student_from_checkpoint(tmp_path, build("bert"), dropout="none").train()
    with torch.no_grad():
        assert torch.equal(student(**INPUTS).logits, student(**INPUTS).logits)
    if family == "bert":
        return
    theirs = {"hidden_dropout_prob", "attention_probs_dropout_prob"}
    assert not theirs & student.config.to_dict().keys()


@pytest.mark.parametrize(
    ("layer_map", "wanted", "available", "expected"),
    [
        *((name, 3, 6, (2, 4, 6)) for name in ("uniform", "skip")),
        *((name, 6, 12, (2, 4, 6, 8, 10, 12)) for name in ("uniform", "skip")),
        ("uniform", 4, 6, (2, 3, 4, 6)),
        ("skip", 4, 6, (1, 2, 3, 4)),
        ("uniform", 5, 12, (2, 5, 7, 10, 12)),
        ("skip", 5, 12, (2, 4, 6, 8, 10)),
        ("uniform", 1, 6, (6,)),
        ("uniform", 6, 3, (1, 1, 2, 2, 2, 3)),
        ("first", 3, 6, (1, 2, 3)),
        ("last", 3, 6, (4, 5, 6)),
        ((1, 5), 2, 6, (1, 5)),
    ],
)
def test_map_layers(layer_map: LayerMap, wanted: int, available: int, expected: tuple[int, ...]) -> None:
    assert map_layers(layer_map, wanted, available) == expected


@pytest.mark.parametrize("available", range(1, 25))
@pytest.mark.parametrize("layer_map", ["uniform", "skip", "first", "last"])
def test_every_named_map_rises_without_repetition(layer_map: LayerMap, available: int) -> None:
    for wanted in range(1, available + 1):
        taken = map_layers(layer_map, wanted, available)
        assert len(taken) == wanted
        assert list(taken) == sorted({*taken} & {*range(1, available + 1)})
        if layer_map in ("uniform", "last"):
            assert taken[-1] == available


@pytest.mark.parametrize(
    ("layer_map", "student", "teacher", "expected"),
    [
        ("uniform", 6, 12, ((1, 2, 3, 4, 5), (2, 4, 6, 8, 10))),
        ("skip", 3, 6, ((1, 2), (2, 4))),
        ("uniform", 4, 2, ((1, 2, 3), (1, 1, 2))),
        ("last", 6, 12, ((1, 2, 3, 4, 5), (7, 8, 9, 10, 11))),
        ("first", 3, 6, ((1, 2), (1, 2))),
        ((2, 5), 3, 6, ((1, 2), (2, 5))),
        ("skip", 3, 3, ((1, 2), (1, 2))),
    ],
)
def test_intermediate_pairs(layer_map: LayerMap, student: int, teacher: int, expected: tuple) -> None:
    assert intermediate_pairs(layer_map, student, teacher) == expected


@pytest.mark.parametrize(
    ("layer_map", "wanted", "message"),
    [
        *(
            (name, 7, r"(?s)must choose 7 layers, and the teacher has 6.*uniform")
            for name in ("skip", "first", "last")
        ),
        ((1, 2), 3, r"(?s)layer map \[1, 2\] is for 3 layers.*3 numbers from 1 to 6"),
        ((0, 1), 2, r"layer map \[0, 1\]"),
        ((1, 7), 2, r"layer map \[1, 7\]"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layer_map: LayerMap, wanted: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        map_layers(layer_map, wanted, 6)


def test_one_layer_has_no_pairs() -> None:
    with pytest.raises(RecipeError, match=r"(?s)1 layer\(s\) has no intermediate state.*2 layers or more"):
        intermediate_pairs("skip", 1, 6)
