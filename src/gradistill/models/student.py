"""Building students: from a teacher's own layers, or from a smaller pre-trained checkpoint."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from gradistill.errors import ModelError, first_line
from gradistill.models.device_map import is_spread, weights_of
from gradistill.models.facts import is_multi_label, is_token_classifier
from gradistill.models.head import some
from gradistill.models.layer_map import LayerMap, map_layers
from gradistill.models.loading import Head, label_names, load_config, load_for_labels
from gradistill.models.model_source import NAME_OR_PATH
from gradistill.models.probe import Probe

logger = logging.getLogger(__name__)

Embeddings = Literal["own", "copied", "frozen"]
Dropout = Literal["keep", "none", "not_in_embeddings"]
TRIED_TOKENS = 8
"""Tokens of the text that a student of a new width is tested on."""
STUDENT_DTYPE = torch.float32
"""The type of a new student's weights, whatever the type of its teacher's."""


def student_from_teacher(
    teacher: PreTrainedModel, layers: int, *, layer_map: LayerMap = "uniform", dropout: Dropout = "keep"
) -> PreTrainedModel:
    """A copy of the teacher with only some of its layers. Everything else, head included, is the teacher's.

    A log line names weights of a copied layer that the student's layer lacks (ModernBERT's first block lacks a norm).

    Parameters:
        ``teacher``: a sequence classifier of transformers.
        ``layers``: the number of student layers.
        ``layer_map``: the teacher layers to copy: ``uniform``, ``skip``, ``first``, ``last``, or a tuple that names
            them from 1.
        ``dropout``: ``keep`` the teacher's rates, or ``none``.

    Raises ModelError for an architecture whose depth cannot be set, RecipeError for layers that do not exist.

    Example: ``student = student_from_teacher(teacher, 3, layer_map=(1, 3, 6))``
    """
    depth = teacher.config.num_hidden_layers
    taken = map_layers(layer_map, layers, depth)
    config = shallow_config(teacher.config, taken)
    _set_dropout(config, dropout)
    student = type(teacher)(config)
    weights = _with_layers(teacher, student, taken)
    if lost := _without_a_place(teacher, student, taken):
        logger.info(
            f"the student's blocks lack the teacher's weights {some(lost)} (the first block of a "
            f"{teacher.config.model_type} differs from the others): they are left out"
        )
    missing, unexpected = student.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ModelError(
            f"layers of {type(teacher).__name__} cannot be copied one by one: {[*missing, *unexpected][:4]}",
            expected="one list of blocks of one kind",
            remedy="give a pre-trained student instead: --student CHECKPOINT",
        )
    return student


def narrow_student(
    teacher: PreTrainedModel, layers: int, width: int, *, dropout: Dropout = "keep"
) -> PreTrainedModel:
    """A new model of the teacher's family with the given depth and width, and random weights; see ``narrow_config``.

    Raises ModelError, also if a model of these sizes fails on a short text or could not be saved.
    """
    config = narrow_config(teacher.config, layers, width)
    _set_dropout(config, dropout)
    try:
        getattr(config, "validate", dict)()  # missing in the oldest supported transformers
        student = type(teacher)(config)
        with torch.no_grad():
            positions = getattr(config, "max_position_embeddings", None) or TRIED_TOKENS
            student.eval()(input_ids=torch.ones(1, min(TRIED_TOKENS, positions), dtype=torch.long))
    except Exception as error:  # of the family's own code
        raise ModelError(
            f"a {config.model_type} of width {width} with {layers} layers does not work: {first_line(error)}",
            expected="a family whose sizes depend on one width",
            remedy="give a pre-trained student instead: --student CHECKPOINT, or leave the width out",
        ) from error
    return student.train()


def narrow_config(config: PreTrainedConfig, layers: int, width: int) -> PreTrainedConfig:
    """The configuration of a model of the same family with the given depth and width.

    Its heads are as wide as the teacher's, and its feed-forward layers keep their ratio to the width. Raises ModelError
    for a width that is no whole number of heads, and for families whose sizes have other names.
    """
    config = copy.deepcopy(config)
    config.dtype = STUDENT_DTYPE
    setattr(config, NAME_OR_PATH, "")
    sizes = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
    if not all(isinstance(getattr(config, name, None), int) for name in sizes):
        raise ModelError(
            f"the width of a {config.model_type} cannot be set",
            expected=f"a family with {', '.join(sizes)}",
            remedy="give a pre-trained student instead: --student CHECKPOINT, or leave the width out",
        )
    part = config.hidden_size // config.num_attention_heads
    if width % part:
        raise ModelError(
            f"The student's width is {width}, and the teacher's heads are {part} wide.",
            expected=f"a multiple of {part}",
            remedy=f"choose {max(part, width // part * part)}",
        )
    heads, depth = width // part, config.num_hidden_layers
    if isinstance(groups := getattr(config, "num_key_value_heads", None), int):
        config.num_key_value_heads = math.gcd(heads, groups)
    if isinstance(getattr(config, "pooler_hidden_size", None), int):  # DeBERTa's
        config.pooler_hidden_size = width
    config.intermediate_size = config.intermediate_size * width // config.hidden_size
    config.num_attention_heads, config.hidden_size = heads, width
    _set_depth(config, tuple(k % depth + 1 for k in range(layers)))
    return config


def student_from_checkpoint(
    name: str | Path, teacher: PreTrainedModel, *, dropout: Dropout = "keep"
) -> PreTrainedModel:
    """A pre-trained model with its own width and depth, and the teacher's labels.

    Weights that the checkpoint lacks (its head) are the teacher's if names and shapes fit, else newly initialised.
    """
    names: dict[int, str] = label_names(teacher)
    labels = tuple(names.values()) if len(names) > 1 else None
    student, missing = _loaded(
        name, Head(labels, is_multi_label(teacher), is_token_classifier(teacher)), dropout
    )
    theirs = weights_of(teacher)
    weights = student.state_dict()
    fitting = {
        key: theirs[key] for key in missing if key in theirs and theirs[key].shape == weights[key].shape
    }
    student.load_state_dict(fitting, strict=False)
    return student


def student_for_labels(name: str | Path, head: Head, *, dropout: Dropout = "keep") -> PreTrainedModel:
    """A pre-trained model with its own width and depth, and the given labels. A missing head is newly initialised.

    Example: ``student_for_labels("minilm-l6", Head(("no", "yes")))``
    """
    return _loaded(name, head, dropout)[0]


def _loaded(name: str | Path, head: Head, dropout: Dropout) -> tuple[PreTrainedModel, tuple[str, ...]]:
    changes: dict[str, Any] = {}
    if dropout == "none":
        changes = dict.fromkeys(_dropout_fields(load_config(name)), 0.0)
    return load_for_labels(name, head, config_changes=changes)


def pair_warnings(
    teacher: PreTrainedModel, student: PreTrainedModel, name: str = "student", *, layers: tuple[int, int]
) -> list[str]:
    """Warnings about a pair of models: if they are the same model, or if the student is deeper than its teacher.

    ``layers`` are the numbers of layers of the teacher and of the student.
    """
    warnings = []
    if same_weights(teacher, student):
        warnings.append(f"the {name} and the teacher hold the same weights: a model is compared with itself")
    if layers[1] > layers[0]:
        warnings.append(f"the {name} has {layers[1]} layers, more than its teacher, which has {layers[0]}")
    return warnings


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether two models hold the same tensors under the same names."""
    ours, theirs = weights_of(one), weights_of(other)
    return ours.keys() == theirs.keys() and all(
        ours[key].shape == theirs[key].shape
        and ours[key].dtype == theirs[key].dtype
        and torch.equal(ours[key].cpu(), theirs[key].cpu())
        for key in ours
    )


def share_embeddings(student: PreTrainedModel, teacher: PreTrainedModel, embeddings: Embeddings) -> None:
    """Give the student the teacher's embedding layer (``copied``), and freeze it (``frozen``); ``own`` does nothing.

    Raises ModelError where a parameter has another shape or does not exist.
    """
    if embeddings == "own":
        return
    parameters, theirs = dict(student.named_parameters()), weights_of(teacher)
    # Weights that accelerate spreads are in no graph. Then the student is probed, which is of the same kind.
    for name in Probe.find(student if is_spread(teacher) else teacher).embedding_parameters:
        shapes = [
            tuple(weights[name].shape) if name in weights else "missing" for weights in (theirs, parameters)
        ]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"the embedding weight {name} is {shapes[0]} in the teacher, and {shapes[1]} in the student",
                expected="the same architecture and width in both for shared embeddings",
                remedy="set student.embeddings to own, or build the student from the teacher",
            )
        parameters[name].data.copy_(theirs[name])
        parameters[name].requires_grad_(embeddings != "frozen")


def silence_embedding_dropout(student: PreTrainedModel, probe: Probe | None = None) -> None:
    """Turn off dropout up to the embedding output (GKD's variant that keeps dropout everywhere else)."""
    probe = probe or Probe.find(student)
    upstream = set(probe.embedding_parameters)
    for name, module in student.named_modules():
        names = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if name == probe.embedding or (
            names and names <= upstream
        ):  # also before a projection (ELECTRA, ALBERT)
            for inside in module.modules():
                if isinstance(inside, nn.Dropout):
                    inside.p = 0.0


def _dropout_fields(config: PreTrainedConfig) -> list[str]:
    return [
        key
        for key, value in config.to_dict().items()
        if isinstance(value, float) and ("dropout" in key or key.endswith("pdrop"))
    ]


def _set_dropout(config: PreTrainedConfig, dropout: Dropout) -> None:
    if dropout == "none":
        for key in _dropout_fields(config):
            setattr(config, key, 0.0)


def shallow_config(config: PreTrainedConfig, taken: tuple[int, ...]) -> PreTrainedConfig:
    """A copy of the configuration with the taken layers only. Per-layer lists (layer_types) are cut accordingly."""
    shallow = copy.deepcopy(config)
    shallow.dtype = STUDENT_DTYPE
    setattr(shallow, NAME_OR_PATH, "")  # it is not the model of the teacher's folder
    _set_depth(shallow, taken)
    return shallow


def _set_depth(config: PreTrainedConfig, taken: tuple[int, ...]) -> None:
    """Set the number of layers to that of the ``taken`` ones, counted from 1, and cut per-layer lists accordingly."""
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers and "layer" in key:
            setattr(config, key, [value[k - 1] for k in taken])
    try:
        config.num_hidden_layers = len(taken)
    except (AttributeError, NotImplementedError) as error:
        raise ModelError(
            f"the depth of a {config.model_type} cannot be set",
            expected="a family with one list of equal blocks",
            remedy="give a pre-trained student instead: --student CHECKPOINT",
        ) from error


def _without_a_place(teacher: PreTrainedModel, student: PreTrainedModel, taken: tuple[int, ...]) -> list[str]:
    """The weights of taken blocks that the student's blocks lack.

    An example is the norm before ModernBERT's attention, which its first block does not have.
    """
    student_weights, theirs = student.state_dict(), teacher.state_dict()
    lost = []
    for stack in _stacks(teacher, student, taken):
        for place, number in enumerate(taken):
            before = f"{stack}.{number - 1}."
            rest = [key.removeprefix(before) for key in theirs if key.startswith(before)]
            lost += [f"{before}{key}" for key in rest if f"{stack}.{place}.{key}" not in student_weights]
    return lost


def _stacks(teacher: PreTrainedModel, student: PreTrainedModel, taken: tuple[int, ...]) -> list[str]:
    """The lists of blocks in the student, by name."""
    return [
        name
        for name, module in student.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == len(taken)
        and len(teacher.get_submodule(name)) == teacher.config.num_hidden_layers  # pyright: ignore[reportArgumentType]
    ]


def _with_layers(
    teacher: PreTrainedModel, student: PreTrainedModel, taken: tuple[int, ...]
) -> Mapping[str, torch.Tensor]:
    """The teacher's weights under the student's names: block i of the student is block ``taken[i]``."""
    stacks = _stacks(teacher, student, taken)
    theirs = weights_of(teacher)
    weights = {}
    for key in student.state_dict():
        source = key
        for stack in stacks:
            if key.startswith(f"{stack}."):
                index, rest = key[len(stack) + 1 :].split(".", 1)
                source = f"{stack}.{taken[int(index)] - 1}.{rest}"
                break  # the outermost: a list inside a block (MobileBERT) may have the same length
        if source in theirs:
            weights[key] = theirs[source]
    return weights
