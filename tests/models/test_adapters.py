"""Adapters of peft as models: what is merged is what peft computes, and nothing random goes unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tr
from safetensors.torch import load_file, save_file

from adapters import save_adapter
from families import build
from gradistill.commands.content_hashes import weights_hash
from gradistill.commands.identity import model_identity
from gradistill.errors import ModelError
from gradistill.models.loading import Head, label_names, load_classifier, load_for_labels, load_tokenizer
from gradistill.models.teacher_loading import TeacherLoading
from gradistill.store.fingerprint import model_hash
from small import WORDS, logged
from wordpiece import tokenizer

IDS = torch.tensor([[1, 7, 9, 12, 2], [1, 5, 5, 30, 2]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body without a head, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "base"
    build("bert").bert.save_pretrained(folder)
    tokenizer(WORDS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapted(base: Path) -> Any:
    """An adapter of five labels, which nothing names, beside its base; the live model as ``live``."""
    folder = base.parent / "adapter"
    live = save_adapter(base, folder, labels=5)
    return folder, live


def changed(folder: Path, to: Path, **settings: Any) -> Path:
    """A copy of an adapter with other settings."""
    to.mkdir(parents=True, exist_ok=True)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (to / file).write_bytes((folder / file).read_bytes())
    found = json.loads((to / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps(found | settings))
    return to


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_an_adapter_is_its_base_with_the_adapter_merged(base: Path, adapted: Any) -> None:
    folder, live = adapted
    model, random = load_classifier(str(folder))
    assert random == ()
    assert isinstance(model, tr.BertForSequenceClassification)  # nothing of peft is left
    torch.testing.assert_close(logits(model), logits(live))
    assert list(label_names(model).values()) == [f"LABEL_{k}" for k in range(5)]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert load_tokenizer(folder).get_vocab() == load_tokenizer(base).get_vocab()


@pytest.mark.parametrize("family", ["roberta", "qwen3", "modernbert"])
def test_a_base_with_a_head_of_another_task(family: str, tmp_path: Path) -> None:
    """The head is the adapter's; the names of labels, the kind and the thresholds are those saved beside it."""
    other = build(family, labels=3)
    other.save_pretrained(tmp_path / "base")
    live = save_adapter(tmp_path / "base", tmp_path / "adapter", labels=2)
    model, _ = load_classifier(tmp_path / "adapter")
    torch.testing.assert_close(logits(model), logits(live))
    live.config.id2label = {0: "no", 1: "yes"}
    live.config.problem_type, live.config.thresholds = "multi_label_classification", [0.25, 0.5]
    live.config.save_pretrained(tmp_path / "adapter")
    model, _ = load_classifier(tmp_path / "adapter")
    assert list(label_names(model).values()) == ["no", "yes"]
    assert (model.config.problem_type, model.config.thresholds) == (live.config.problem_type, [0.25, 0.5])


def test_an_adapters_labels_keep_their_outputs_whatever_order_its_base_has(tmp_path: Path) -> None:
    """As it is loaded nothing is moved; for the same labels in another order each keeps its weights."""
    other = build("bert", labels=2)
    other.config.id2label, other.config.label2id = {0: "neg", 1: "pos"}, {"neg": 0, "pos": 1}
    other.save_pretrained(tmp_path / "base")
    live = save_adapter(tmp_path / "base", tmp_path / "adapter", labels=2)
    live.config.id2label, live.config.label2id = {0: "pos", 1: "neg"}, {"pos": 0, "neg": 1}
    live.config.save_pretrained(tmp_path / "adapter")
    with logged([]) as lines:
        model, _ = load_classifier(tmp_path / "adapter")
    assert lines == []
    torch.testing.assert_close(logits(model), logits(live))
    moved, _ = load_for_labels(tmp_path / "adapter", Head(("neg", "pos")))
    torch.testing.assert_close(logits(moved), logits(live)[:, [1, 0]])
    live.config.label2id = {"pos": 1, "neg": 0}
    live.config.save_pretrained(tmp_path / "adapter")
    with logged([]) as lines:
        load_classifier(tmp_path / "adapter")
    assert ["label2id of config.json contradicts" in line for line in lines] == [True]


def test_both_weights_and_settings_count_for_the_identity(base: Path, adapted: Any, tmp_path: Path) -> None:
    folder, _ = adapted
    louder = changed(folder, tmp_path / "louder", lora_alpha=16)
    moved = changed(folder, tmp_path / "moved", base_model_name_or_path="base")
    build("bert", seed=1).bert.save_pretrained(moved / "base")  # another base, found beside the adapter
    found = [folder, louder, moved]
    models = [load_classifier(at)[0] for at in found]
    assert model_hash(models[0]) == model_hash(load_classifier(folder)[0])
    assert len({model_hash(model) for model in models}) == 3
    assert len({weights_hash(str(at)) for at in found}) == 3
    assert (
        model_identity(models[0], str(folder))["sha256"] == model_identity(models[1], str(louder))["sha256"]
    )


def test_a_start_keeps_what_fits_and_reports_what_is_random(adapted: Any) -> None:
    folder, live = adapted
    model, random = load_classifier(folder, head=Head(("a", "b")), new_head=True)
    assert random == ("classifier.bias", "classifier.weight")
    assert model.config.num_labels == 2
    torch.testing.assert_close(model.bert(IDS)[1], live.get_base_model().bert(IDS)[1])


def test_tokens_can_be_labelled_by_an_adapter(base: Path, tmp_path: Path) -> None:
    live = save_adapter(base, tmp_path, task_type="TOKEN_CLS", target_modules=["query"])
    model, _ = load_classifier(tmp_path, tokens=True)
    torch.testing.assert_close(logits(model), logits(live))
    with pytest.raises(ModelError, match="adapter for the task TOKEN_CLS"):
        load_classifier(tmp_path)


def test_a_random_head_is_never_used(base: Path, adapted: Any, tmp_path: Path) -> None:
    folder, _ = adapted
    headless = changed(folder, tmp_path / "headless")
    weights = load_file(headless / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(kept, headless / "adapter_model.safetensors")
    frozen = tmp_path / "frozen"
    save_adapter(base, frozen, task_type=None)  # peft saves no head then, and the base has none
    without_pooler = tmp_path / "masked"
    tr.BertForMaskedLM(build("bert").config).save_pretrained(without_pooler / "base")
    save_adapter(without_pooler / "base", without_pooler / "adapter")
    for at, name in (
        (headless, "classifier.weight"),
        (frozen, "classifier.weight"),
        (without_pooler / "adapter", "pooler.dense.weight"),
    ):
        with pytest.raises(ModelError, match=rf"(?s)neither the adapter .* holds weights of a .*{name}"):
            load_classifier(at)
    assert "classifier.weight" in load_classifier(headless, head=Head(("a", "b")), new_head=True)[1]
    lost = changed(folder, tmp_path / "lost")
    save_file({n: t for n, t in weights.items() if "layer.1" not in n}, lost / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit its base model .*: its file lacks .*layer\.1"):
        load_classifier(lost, head=Head(("a", "b")), new_head=True)


def test_a_head_of_the_base_serves_an_adapter_without_one(tmp_path: Path) -> None:
    build("roberta", labels=3).save_pretrained(tmp_path / "base")
    targets = ["query", "value"]
    live = save_adapter(tmp_path / "base", tmp_path / "adapter", task_type=None, target_modules=targets)
    torch.testing.assert_close(logits(load_classifier(tmp_path / "adapter")[0]), logits(live))


def test_what_cannot_be_merged_is_refused(base: Path, adapted: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder, _ = adapted
    gone = str(tmp_path / "gone" / "base")
    prompts = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    body = tr.AutoModelForSequenceClassification.from_pretrained(base)
    prompts.num_layers, prompts.token_dim, prompts.num_attention_heads = 3, 16, 2
    peft.get_peft_model(body, prompts).save_pretrained(tmp_path / "prompts")
    for settings, message in (
        (
            {"base_model_name_or_path": gone},
            r"(?s)no model folder .*gone.*base model of the adapter.*write where",
        ),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": str(folder)}, "is an adapter itself"),
        (
            {"base_model_name_or_path": "someone/else"},
            r"(?s)hub the .*someone/else cannot.*base model of the adapter",
        ),
        ({"revision": "v2"}, "belongs to the revision v2"),
        ({"task_type": "CAUSAL_LM"}, "adapter for the task CAUSAL_LM"),
        ({"peft_type": "NEWEST"}, "of the kind NEWEST"),
        ({"r": 3}, "does not fit its base model"),
        ({"target_modules": ["nothing"]}, "does not fit its base model"),
    ):
        with pytest.raises(ModelError, match=message):
            load_classifier(changed(folder, tmp_path / "changed", **settings))
    with pytest.raises(ModelError, match="PROMPT_TUNING, which cannot be merged"):
        load_classifier(tmp_path / "prompts")
    with pytest.raises(ModelError, match="merged in the memory of one device"):
        load_classifier(folder, loading=TeacherLoading(device_map="auto"))
    named = changed(folder, tmp_path / "named")
    config = build("bert", labels=2).config
    config.id2label = {0: "no", 1: "yes"}
    config.save_pretrained(named)
    with pytest.raises(
        ModelError, match=r"head of the adapter .* has 5 outputs, and its config.json names 2"
    ):
        load_classifier(named)
    pickled = changed(folder, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"(?s)holds no adapter_model.safetensors, only adapter_model.bin"):
        load_classifier(pickled)
    (pickled / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match=r"adapter_model.safetensors is damaged"):
        load_classifier(pickled)
    (pickled / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"adapter_config.json is damaged"):
        load_classifier(pickled)
    monkeypatch.setattr("gradistill.models.adapters.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'gradistill\[peft\]'"):
        load_tokenizer(folder)
