"""Loading classifiers and tokenizers: from a folder, a hub id, or the packaged model; never from a pickle."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from gradistill.data.label_matching import shortened
from gradistill.errors import ModelError, first_line
from gradistill.io import read_object, system_reason
from gradistill.models.adapters import ADAPTER, Adapter, is_adapter
from gradistill.models.device_map import DeviceMap, weights_of
from gradistill.models.facts import (
    MULTI_LABEL,
    TOKEN_CLASSIFIER,
    set_thresholds,
    thresholds_in,
    thresholds_of,
)
from gradistill.models.head import Head, keep_outputs, names_in, some
from gradistill.models.model_source import ModelSource, given_tokenizer, model_name, on_disk
from gradistill.models.packaged import PACKAGED, packaged_model
from gradistill.models.random_head import has_head, head_parameters
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading
from gradistill.models.weight_files import folder_of, refuse_pickles, refuse_pipes, refuse_strange_weights

logger = logging.getLogger(__name__)

MOST_LABELS = 100_000
"""More labels than any model that is distilled has."""
_OTHER_TASKS = {
    "TokenClassification": "it labels the tokens of a text",
    "QuestionAnswering": "it finds the span that answers a question",
    "MultipleChoice": "it chooses among several texts",
    "NextSentencePrediction": "it decides whether one sentence follows another",
    "ImageClassification": "it labels images",
    "AudioClassification": "it labels recordings",
}


def locate(name: str | Path) -> str:
    """A folder or hub id that transformers can open; checks a local folder before transformers sees it."""
    folder = Path(name)
    try:
        exists = folder.exists()
    except OSError as error:
        raise ModelError(
            f"the model {name} cannot be found: {system_reason(error)}",
            expected="a folder with config.json and model.safetensors, a hub id, or 'minilm-l6'",
            remedy="check the path",
        ) from error
    if str(name) == PACKAGED and not exists:
        return str(packaged_model())
    if not exists:
        local = (
            folder.parent != Path() and folder.parent.is_dir()
        )  # the parent folder exists, so the name is no hub id
        if local or folder.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
            raise ModelError(
                f"there is no model folder {name}",
                expected="a folder with config.json and model.safetensors, a hub id, or 'minilm-l6'",
                remedy="check the path",
            )
        return str(name)
    if not (folder / "config.json").is_file():
        if is_adapter(folder):
            refuse_pipes(folder)
            return str(folder)
        if (folder / "checkpoints").is_dir():
            raise ModelError(
                f"{name} holds no config.json, but checkpoints: its run has not ended",
                expected="a finished run, or another model folder",
                remedy="run the command of that run again; it goes on from the last checkpoint",
            )
        raise ModelError(
            f"{name} holds no config.json",
            expected="a model folder as save_pretrained writes it",
            remedy="name the folder that holds config.json and model.safetensors",
        )
    refuse_pipes(folder)
    _refuse_absurd_labels(folder)
    return str(folder)


def _refuse_absurd_labels(folder: Path) -> None:
    """Raise ModelError for too many labels: transformers would make a name for each, which takes time or memory."""
    try:
        labels = read_object(folder / "config.json").get("num_labels")
    except (OSError, ValueError):
        return  # the fault is reported when the file is read
    if isinstance(labels, int) and labels > MOST_LABELS:
        raise ModelError(
            f"config.json of {folder} has num_labels: {labels}",
            expected=f"{MOST_LABELS:,} labels at most",
            remedy="correct it to the number of rows of the classification head",
        )


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The fast tokenizer that belongs to a model.

    Parameters:
        ``source``: as for ``load_classifier``.

    Raises ModelError with the cause.

    Example: ``tokenizer = load_tokenizer("runs/teacher")``
    """
    if (given := given_tokenizer(source)) is not None:
        return copy.deepcopy(given)
    name = model_name(source)
    place = locate(name)
    if is_adapter(place) and not (adapter := Adapter.read(place)).has_tokenizer:
        with _base_of(adapter):
            return load_tokenizer(adapter.base)
    with _quiet(), _explained(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers invents one if files are missing
        raise ModelError(
            f"{name} holds no tokenizer",
            expected="tokenizer.json, or the files of a slow tokenizer, in the folder of config.json",
            remedy="save it there: tokenizer.save_pretrained(folder)",
        )
    return tokenizer


def load_config(name: str | Path, **fields: Any) -> PreTrainedConfig:
    """The configuration of a model with ``fields`` changed; for an adapter, of its base model.

    Raises ModelError with the cause.
    """
    place = locate(name)
    if is_adapter(place):
        adapter = Adapter.read(place)
        with _base_of(adapter):
            return load_config(adapter.base, **fields)
    with _quiet(), _explained(name, "model"):
        return AutoConfig.from_pretrained(place, trust_remote_code=False, **fields)


def load_classifier(
    source: ModelSource,
    *,
    head: Head | None = None,
    new_head: bool = False,
    config_changes: dict[str, Any] | None = None,
    loading: TeacherLoading = AS_IT_IS,
    tokens: bool = False,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A sequence classifier, and the names of weights that the checkpoint did not hold.

    Only safetensors are read, no remote code runs.

    Parameters:
        ``source``: a folder, a hub id, ``minilm-l6``, or a pair ``(model, tokenizer)``, which stays as it is. A folder
            with an adapter of peft is its base model with the adapter merged into it.
        ``head``: the labels of the head; without it the checkpoint's own are kept.
        ``new_head``: accept a checkpoint that lacks its head (classifier and pooler), which then starts at random.
        ``config_changes``: fields of the configuration to change before the model is built.
        ``loading``: the type of its weights and computations (default float32), and how accelerate spreads them. An
            adapter is merged in float32 first, and is not spread.
        ``tokens``: load a token classifier, too, if the checkpoint's configuration names one.

    Raises ModelError with the cause, also for a checkpoint that lacks weights, or holds some of another shape.

    Example: ``teacher, _ = load_classifier("runs/teacher")``
    """
    name = model_name(source)
    with on_disk(source) as given:
        place = locate(given)
        if is_adapter(place):
            _refuse_spread(name, loading.device_map)
            model, random = _load_adapted(
                Adapter.read(place),
                head=head,
                new_head=new_head,
                config_changes=config_changes or {},
                tokens=tokens,
            )
            return model.to(loading.torch_dtype), random  # pyright: ignore[reportArgumentType]
        refuse_pickles(Path(place))
        fields = {**(head.config_fields() if head else {}), **(config_changes or {})}
        config = load_config(given, **fields)
        if head is not None and getattr(config, "thresholds", None) is not None:
            config.thresholds = None  # they belong to the checkpoint's own labels
        with _quiet(), _explained(name, "model"):
            refuse_strange_weights(name, folder_of(place), getattr(config, "transformers_weights", None))
        if head is None:
            settle_label_ids(name, config)
        labels_tokens = head.token_labels if head else tokens and names_token_classifier(config)
        kind = AutoModelForTokenClassification if labels_tokens else AutoModelForSequenceClassification
        with _quiet(), _explained(name, "model"):
            model, info = kind.from_pretrained(
                place, config=config, dtype=loading.torch_dtype, use_safetensors=True, trust_remote_code=False,
                ignore_mismatched_sizes=new_head, output_loading_info=True, device_map=loading.device_map,
            )  # fmt: skip
    if not new_head and not labels_tokens:
        refuse_other_tasks(name, config)
        _refuse_odd_outputs(name, config)
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if missing and not new_head:
        raise ModelError(
            f"{name} lacks weights of a {type(model).__name__}: {some(missing)}",
            expected=f"a fine-tuned {'token' if labels_tokens else 'sequence'} classifier",
            remedy="fine-tune it first: gradistill finetune",
        )
    _refuse_incomplete(name, model, missing)
    _refuse_non_finite(name, model)
    if loading.device_map is None:
        _align(model)
    return model, tuple(missing)


def load_for_labels(
    source: ModelSource, head: Head, *, config_changes: dict[str, Any] | None = None
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A classifier that is to learn the labels of ``head``, and the names of weights that start at random.

    As ``load_classifier`` with ``new_head``. An existing head with the same labels in another order is kept, and each
    label keeps its own weights.

    Example: ``load_for_labels("runs/teacher", Head(("no", "yes")))``
    """
    model, missing = load_classifier(source, head=head, new_head=True, config_changes=config_changes)
    if head.labels is not None and not missing:
        with on_disk(source) as given:
            adapted = is_adapter(place := locate(given))
            config = _config_of_labels(Adapter.read(place)) if adapted else load_config(given)
        keep_outputs(model, tuple(names_in(config).values()), head.labels)
    return model, missing


def empty_classifier(name: str | Path, head: Head) -> PreTrainedModel:
    """A checkpoint's classifier on torch's ``meta`` device: shapes without weights. Raises ModelError."""
    config = load_config(name, **head.config_fields())
    kind = AutoModelForTokenClassification if head.token_labels else AutoModelForSequenceClassification
    with _quiet(), _explained(name, "model"), torch.device("meta"):
        return kind.from_config(config, trust_remote_code=False)


def names_token_classifier(config: PreTrainedConfig) -> bool:
    """Whether a configuration describes a token classifier."""
    return any(str(name).endswith(TOKEN_CLASSIFIER) for name in _architectures(config))


def _architectures(config: PreTrainedConfig) -> list[Any]:
    """The classes that a configuration names; empty if a file has something else in their place."""
    return config.architectures if isinstance(config.architectures, list) else []


def label_names(model: PreTrainedModel) -> dict[int, str]:
    """The names of a classifier's outputs by their number, in order."""
    return names_in(model.config)


def set_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the pad token in a model's configuration if it has none (decoders): the model must recognise padding.

    The head of a decoder, ``score``, looks for the last token that is not padding. Batches are padded with the
    tokenizer's pad token. If such a model's configuration names another one, it is changed, too, with a log line.
    """
    configured, padding = model.config.pad_token_id, tokenizer.pad_token_id
    looks_for_padding = isinstance(getattr(model, "score", None), nn.Linear)
    if configured is not None and looks_for_padding and padding is not None and configured != padding:
        logger.info(
            f"{type(model).__name__}: batches are padded with token {padding}, the tokenizer's pad token, and "
            f"config.json names {configured}: the head looks for {padding} from here on"
        )
    if configured is None or looks_for_padding:
        model.config.pad_token_id = configured if padding is None else padding


def _refuse_spread(name: str | Path, device_map: DeviceMap | None) -> None:
    if device_map is not None:
        raise ModelError(
            f"{name} is an adapter, which is merged in the memory of one device",
            expected="a whole model for a device map",
            remedy="merge it: model.merge_and_unload().save_pretrained(folder), and tokenizer.save_pretrained(folder)",
        )


@contextmanager
def _base_of(adapter: Adapter) -> Iterator[None]:
    """Turn a ModelError about a base model into one that names its adapter, too."""
    try:
        yield
    except ModelError as error:
        raise ModelError(
            f"{error.what} (the base model of the adapter {adapter.folder})",
            expected=error.expected,
            remedy=f"{error.remedy}; or write where the base model is as base_model_name_or_path into "
            f"{adapter.folder / ADAPTER}",
        ) from error


def _load_adapted(
    adapter: Adapter,
    *,
    head: Head | None,
    new_head: bool,
    config_changes: dict[str, Any],
    tokens: bool,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """``load_classifier`` of an adapter: its base model with the adapter merged into it."""
    thresholds = None
    if head is None:
        adapter.refuse_other_task(tokens=tokens)
        config = _config_of_labels(adapter)
        settle_label_ids(adapter.folder if adapter.has_config else adapter.base, config)
        head = adapter.head(config)
        thresholds = thresholds_in(config) if head.multi_label else None
    with _base_of(adapter):
        model, missing = load_classifier(
            adapter.base, head=head, new_head=True, config_changes=config_changes
        )
    if thresholds is not None or thresholds_of(model) is not None:
        set_thresholds(model, thresholds)
    with _quiet():
        model, random = adapter.merged_into(model, missing, new_head=new_head)
    if random and not new_head:
        raise ModelError(
            f"neither the adapter {adapter.folder} nor its base model {adapter.base} holds weights of a "
            f"{type(model).__name__}: {some(random)}",
            expected="an adapter saved with its head (modules_to_save), as peft does for the task type SEQ_CLS",
            remedy="train it with modules_to_save for these, or fine-tune it: gradistill finetune --model "
            f"{adapter.folder}",
        )
    _refuse_non_finite(adapter.folder, model)
    _align(model)
    return model.eval(), random


def _config_of_labels(adapter: Adapter) -> PreTrainedConfig:
    """The configuration that names the labels: the adapter's, or else the base model's."""
    if adapter.has_config:
        with _quiet(), _explained(adapter.folder, "configuration of"):
            return AutoConfig.from_pretrained(str(adapter.folder), trust_remote_code=False)
    with _base_of(adapter):
        return load_config(adapter.base)


def refuse_other_tasks(name: str | Path, config: PreTrainedConfig) -> None:
    """Raise ModelError for a model of another task: its head may have weights of the same names and shapes as a
    sequence classifier's."""
    for architecture in _architectures(config):
        if (task := re.search(r"For(\w+)$", str(architecture))) and task[1] in _OTHER_TASKS:
            raise ModelError(
                f"{name} is a {architecture}: {_OTHER_TASKS[task[1]]}",
                expected="a sequence classifier, which gives one label or score to a whole text (finetune, distill, "
                "signals, predict and audit can use a token classifier too)",
                remedy="name a fine-tuned sequence classifier, or fine-tune this model into one: gradistill finetune "
                f"--model {name}",
            )


def _refuse_odd_outputs(name: str | Path, config: PreTrainedConfig) -> None:
    """Raise ModelError for kinds of outputs that are not supported: they would be read as another kind."""
    count, kind = config.num_labels or 0, getattr(config, "problem_type", None)
    if kind == "regression" and count > 1:
        fault, expected = f"gives {count} scores a text", "one score (num_labels 1), or classes"
    elif kind == MULTI_LABEL and count == 1:
        fault, expected = (
            "gives a yes or no to one label by itself",
            "two labels, one of which a text has, or several labels of which it may have any number",
        )
    else:
        return
    raise ModelError(
        f"{name} {fault}: its config.json has the problem_type {kind}",
        expected=expected,
        remedy="correct problem_type and id2label, or fine-tune the model with such labels",
    )


def settle_label_ids(name: str | Path, config: PreTrainedConfig) -> None:
    """Let ``label2id`` follow ``id2label``, which names the outputs; warn where it named them otherwise."""
    names = names_in(config)
    before, ids = config.label2id, {label: place for place, label in names.items()}
    config.label2id = ids
    if isinstance(before, dict) and before != ids and before.keys() == ids.keys():
        listed = ", ".join(f"{place} = {label}" for place, label in names.items())
        logger.warning(
            f"{name}: label2id of config.json contradicts its id2label, by which the outputs are {shortened(listed)}. "
            "If that is wrong, all predictions are of other labels: correct config.json"
        )


def _align(model: PreTrainedModel) -> None:
    """Copy every weight to memory that torch aligns.

    Weights from a file start at any address. Some processors then add up a product's terms in another order, so that
    equal weights would not give equal predictions, bit for bit.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _refuse_incomplete(name: str | Path, model: PreTrainedModel, missing: Sequence[str]) -> None:
    """Raise ModelError if weights outside the head would start at random."""
    head = head_parameters(model) if has_head(model) else dict.fromkeys(missing)
    if lost := [key for key in missing if key not in head]:
        raise ModelError(
            f"{name} lacks weights of a {type(model).__name__}, or holds them in another shape than its config.json "
            f"has: {some(lost)}",
            expected="a checkpoint that holds all but the head",
            remedy="check that the files are whole, and that config.json belongs to them",
        )


def _refuse_non_finite(name: str | Path, model: PreTrainedModel) -> None:
    broken = [key for key, tensor in weights_of(model).items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(
            f"{name} holds weights that are NaN or infinite: {some(broken)}",
            expected="finite numbers",
            remedy="take a checkpoint from before its training went wrong, or load the model again from its source",
        )


@contextmanager
def _explained(name: str | Path, what: str) -> Iterator[None]:
    """Turn any error of the libraries while loading into a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        where = "" if Path(name).exists() else f"there is no folder {name}, and as a name on the hub "
        raise ModelError(
            f"{where}the {what} {name} cannot be loaded: {first_line(error)}",
            expected="a folder with config.json, tokenizer files and safetensors, or a hub id",
            remedy="check the path or id, that its files are whole, and that the hub can be reached",
        ) from error


@contextmanager
def without_file_bars() -> Iterator[None]:
    """No progress bars of transformers for files that it reads or writes; the Trainer's bars stay."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _quiet() -> Iterator[None]:
    """No load report and no progress bar of transformers: this module checks and reports what matters of it."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with without_file_bars():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
