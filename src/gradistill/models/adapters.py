"""Adapters of peft (such as LoRA): a folder with few weights, which are merged into the weights of a base model."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from gradistill.errors import ModelError
from gradistill.io import checksum_of
from gradistill.models.facts import has_several_labels
from gradistill.models.head import Head, names_in, some
from gradistill.package_versions import installing

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CLASSIFIES, LABELS_TOKENS = "SEQ_CLS", "TOKEN_CLS"
"""The task types of peft for a classifier of texts, and of tokens."""

_PREFIX = "base_model.model."
_WHOLE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def is_adapter(place: str | Path) -> bool:
    """Whether a folder holds an adapter, and no weights of a whole model."""
    folder = Path(place)
    return (folder / ADAPTER).is_file() and not any(_WHOLE.fullmatch(file.name) for file in folder.iterdir())


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder, as its files describe it; ``base`` names the model that it belongs to.

    Example: ``Adapter.read("runs/lora").base``
    """

    folder: Path
    base: str
    task: str | None
    """``SEQ_CLS``, ``TOKEN_CLS``, or peft's name of another task; None where the adapter has none."""

    @classmethod
    def read(cls, folder: str | Path) -> Adapter:
        """Read an adapter's settings. Raises ModelError for damaged files, pickles, and kinds that cannot be merged."""
        folder = Path(folder)
        settings = _settings(folder / ADAPTER)
        base, kind = settings.get("base_model_name_or_path"), str(settings.get("peft_type"))
        remedy = (
            f"write the folder or hub id of its base model as base_model_name_or_path into {folder / ADAPTER}"
        )
        if not isinstance(base, str) or not base:
            raise ModelError(f"the adapter {folder} names no base model", expected="its name", remedy=remedy)
        if settings.get("revision") not in (None, "main"):
            raise ModelError(
                f"the adapter {folder} belongs to the revision {settings['revision']} of {base}",
                expected="the newest revision of a base model, or a folder",
                remedy=f"download that revision, and {remedy}",
            )
        if not (folder / ADAPTER_WEIGHTS).is_file():
            files = sorted(file.name for file in folder.glob("adapter_model*"))
            raise ModelError(
                f"the adapter {folder} holds no {ADAPTER_WEIGHTS}"
                + (f", only {', '.join(files)}" if files else ""),
                expected="weights as safetensors; a pickle can run code and is never opened",
                remedy="save the adapter again with save_pretrained, which writes safetensors",
            )
        if find_spec("peft") is None:
            raise ModelError(
                f"{folder} is an adapter ({kind}), and peft, which reads it, is not installed",
                expected="the package peft",
                remedy=installing("peft"),
            )
        if _learns_prompts(kind):
            raise _unmergeable(folder, kind)
        base = _moved(base, folder)
        if is_adapter(base):
            raise ModelError(
                f"the base model {base} of the adapter {folder} is an adapter itself",
                expected="a whole model",
                remedy="merge it: model.merge_and_unload().save_pretrained(folder), and name that folder as "
                f"base_model_name_or_path in {folder / ADAPTER}",
            )
        return cls(folder, base, settings.get("task_type"))

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer was saved with the adapter."""
        return any((self.folder / name).is_file() for name in _TOKENIZER)

    @property
    def labels_tokens(self) -> bool:
        """Whether it was trained to label the tokens of a text."""
        return self.task == LABELS_TOKENS

    @property
    def has_config(self) -> bool:
        """Whether a configuration, which names the labels, was saved with the adapter."""
        return (self.folder / "config.json").is_file()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the file's tensors. Those that replace weights of the base model have the same names as these.

        Raises ModelError for a damaged file.
        """
        try:
            with safe_open(str(self.folder / ADAPTER_WEIGHTS), "pt") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            raise ModelError(
                f"{self.folder / ADAPTER_WEIGHTS} is damaged: {error}",
                expected="safetensors as peft writes them",
                remedy="save the adapter again",
            ) from error
        return {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}

    def _outputs(self, config: PreTrainedConfig) -> int | None:
        """The number of outputs of the head in the file; None if the file holds no head of such a model."""
        for name in _output_weights(config, tokens=self.labels_tokens):
            if name in self.shapes:
                return self.shapes[name][0]
        return None

    def refuse_other_task(self, *, tokens: bool) -> None:
        """Raise ModelError for an adapter that is no text classifier or, with ``tokens``, no token classifier."""
        if self.task not in (None, CLASSIFIES, *((LABELS_TOKENS,) if tokens else ())):
            raise ModelError(
                f"{self.folder} is an adapter for the task {self.task}",
                expected=f"a sequence classifier ({CLASSIFIES}), which gives one label or score to a whole text",
                remedy=f"fine-tune it into one: gradistill finetune --model {self.folder}",
            )

    def head(self, config: PreTrainedConfig) -> Head:
        """The head in the file, with a label for each output, named as in ``config``.

        Raises ModelError for another number of names, unless they only number the labels (``LABEL_0``).
        """
        names = tuple(names_in(config).values())
        count = self._outputs(config) or len(names)
        fits = count == len(names)
        if not fits and not all(re.fullmatch(r"LABEL_\d+", name) for name in names):
            raise ModelError(
                f"the head of the adapter {self.folder} has {count} outputs, and its "
                f"{'config.json' if self.has_config else 'base model'} names {len(names)} labels: {some(names)}",
                expected="as many labels as outputs",
                remedy=f"save a config.json with the adapter's own labels (id2label) in {self.folder}: "
                "model.config.save_pretrained(folder)",
            )
        if count == 1:
            return Head(None, token_labels=self.labels_tokens)
        labels = names if fits else tuple(f"LABEL_{k}" for k in range(count))
        return Head(labels, fits and has_several_labels(config), self.labels_tokens)

    def merged_into(
        self, model: PreTrainedModel, missing: Sequence[str], *, new_head: bool
    ) -> tuple[PreTrainedModel, tuple[str, ...]]:
        """Merge the adapter into the base ``model``. Returns the model and the names of its random weights.

        Parameters:
            ``model``: the base model; it is changed.
            ``missing``: names of weights that the base's checkpoint did not hold.
            ``new_head``: whether to leave out a head that does not fit the model's.

        Raises ModelError for an adapter of another base.
        """
        import peft

        before = model.state_dict().keys()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing weights are checked below
            try:
                config = peft.PeftConfig.from_pretrained(str(self.folder))
                lost = self._lost(config, before)
                if lost or self.task not in (CLASSIFIES, LABELS_TOKENS):
                    config.task_type = None  # with a task type peft requires a head, or a model of that task
                adapted = peft.PeftModel.from_pretrained(
                    model,
                    str(self.folder),
                    config=config,
                    torch_device=str(model.device),
                    ignore_mismatched_sizes=new_head,
                )
                wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
                every = {*wanted, *adapted.state_dict()}
                merge: Any = getattr(adapted, "merge_and_unload", None)
                if merge is None:
                    raise _unmergeable(self.folder, str(getattr(config.peft_type, "value", config.peft_type)))
                merged = merge(safe_merge=True)
            except ModelError:
                raise
            except Exception as error:
                raise self._unfit(str(error).strip().partition("\n\t")[0] or type(error).__name__) from error
        if unknown := sorted(self.shapes.keys() - {name.removeprefix(_PREFIX) for name in every}):
            raise self._unfit(f"the base has no place for {some(unknown)}")
        if merged.state_dict().keys() != before:
            raise self._unfit("it changes which weights the model has")
        shapes = {name.removeprefix(_PREFIX): tuple(tensor.shape) for name, tensor in wanted.items()}
        unread = {name for name, shape in shapes.items() if self.shapes.get(name) != shape} | lost
        if lacking := sorted(unread - before):
            raise self._unfit(f"its file lacks {some(lacking)}")
        merged.requires_grad_(True)
        random = {*missing} - self.shapes.keys() | unread
        return merged, tuple(sorted(random))

    def _lost(self, config: Any, names: Iterable[str]) -> set[str]:
        """The weights of a model that the adapter was trained with, but that its file does not hold.

        Their modules are removed from ``config``, because peft would fail.
        """
        saved = getattr(config, "modules_to_save", None) or ()
        present = [module for module in saved if any(_within(name, module) for name in self.shapes)]
        absent = set(saved) - {*present}
        if absent:
            config.modules_to_save = present or None
        return {name for name in names if any(_within(name, module) for module in absent)}

    def _unfit(self, why: str) -> ModelError:
        return ModelError(
            f"the adapter {self.folder} does not fit its base model {self.base}: {why}",
            expected="the model that it was trained on",
            remedy="correct base_model_name_or_path in its adapter_config.json",
        )


def _within(name: str, module: str) -> bool:
    """Whether a weight belongs to a module with this name, or with a name that ends in it."""
    return f".{module}." in f".{name}"


def adapter_files(folder: str | Path) -> list[str]:
    """Hashes of the files of an adapter. Its base model is not included."""
    return [checksum_of(Path(folder) / name) for name in (ADAPTER, ADAPTER_WEIGHTS)]


def _unmergeable(folder: Path, kind: str) -> ModelError:
    return ModelError(
        f"the adapter {folder} is of the kind {kind}, which cannot be merged into the weights of its base",
        expected="an adapter of weights, such as LORA",
        remedy="give it to distill and audit as a function of texts: --teacher python:module:function",
    )


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        settings = error
    if not isinstance(settings, dict):
        raise ModelError(
            f"{file} is damaged: {settings if isinstance(settings, Exception) else 'it holds no object'}",
            expected="the configuration of an adapter as peft writes it",
            remedy="save the adapter again",
        )
    return settings


def _learns_prompts(kind: str) -> bool:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known: Any = PEFT_TYPE_TO_CONFIG_MAPPING
    if kind not in known:
        raise ModelError(
            f"an adapter is of the kind {kind}",
            expected=f"one of {', '.join(sorted(str(k.value) for k in known))}",
            remedy="save it again, or install the version of peft that it was made with",
        )
    try:
        config = known[kind]()
    except (TypeError, ValueError):  # requires arguments, which no kind of prompt learning does
        return False
    return bool(config.is_prompt_learning or config.is_adaption_prompt)


def _moved(base: str, folder: Path) -> str:
    """The path of a base model. A relative path starts at the working directory, or else at the adapter's folder."""
    beside = folder / base
    return str(beside) if not Path(base).exists() and beside.is_dir() else base


def _output_weights(config: PreTrainedConfig, *, tokens: bool) -> list[str]:
    """The weights of a classifier whose first size is the number of labels: they differ between 5 and 7 labels."""
    kind = AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification
    shapes, changed = [], copy.deepcopy(config)
    for count in (5, 7):
        changed.num_labels = count
        with torch.device("meta"):
            model = kind.from_config(changed, trust_remote_code=False)
        shapes.append({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    few, more = shapes
    return [name for name, shape in few.items() if shape != more[name]]
