"""Maps of teacher layers to student layers, for copying weights and for comparing states."""

from __future__ import annotations

from typing import Literal

from gradistill.errors import RecipeError

LayerMap = Literal["uniform", "skip", "first", "last"] | tuple[int, ...]
Layers = tuple[int, ...]


def map_layers(layer_map: LayerMap, wanted: int, available: int) -> Layers:
    """Choose ``wanted`` of the ``available`` layers, counted from 1.

    ``uniform`` takes them evenly and ends with the last (6 of 12: 2, 4, …, 12; 4 of 6: 2, 3, 4, 6); if more are wanted
    than available, some occur several times. ``skip`` takes every ⌊available / wanted⌋-th from below (PKD; 4 of 6:
    1, 2, 3, 4), ``first`` and ``last`` take consecutive layers from one end, a list names them. Raises RecipeError if
    they do not exist or their number is not ``wanted``.
    """
    if wanted < 1:
        raise RecipeError(f"The number of the student's layers is {wanted}.", expected="1 or more")
    if layer_map == "uniform":
        return tuple(max(1, round(k * available / wanted)) for k in range(1, wanted + 1))
    if isinstance(layer_map, tuple | list):
        layer_map = tuple(layer_map)
        if len(layer_map) != wanted or any(not 1 <= k <= available for k in layer_map):
            raise RecipeError(
                f"The layer map {list(layer_map)} is for {wanted} layers.",
                expected=f"{wanted} numbers from 1 to {available}",
                remedy="list one teacher layer for each student layer",
            )
        return layer_map
    if wanted > available:
        raise RecipeError(
            f"The layer map {layer_map!r} must choose {wanted} layers, and the teacher has {available}.",
            expected=f"at most {available}",
            remedy="make the student shallower, use layer_map uniform, or list the layers",
        )
    stride = available // wanted if layer_map == "skip" else 1
    below = available - wanted if layer_map == "last" else 0
    return tuple(below + stride * k for k in range(1, wanted + 1))


def layer_pairs(layer_map: LayerMap, student_layers: int, teacher_layers: int) -> tuple[Layers, Layers]:
    """All student layers, from 1, and the teacher layer that each is matched to."""
    return tuple(range(1, student_layers + 1)), map_layers(layer_map, student_layers, teacher_layers)


def intermediate_pairs(
    layer_map: LayerMap, student_layers: int, teacher_layers: int
) -> tuple[Layers, Layers]:
    """Student layers 1 … L_s − 1 and their teacher layers (PKD section 3.2; for 6 and 12 layers: 2, 4, …, 10).

    The last layer is left out: the logits represent it. ``last`` ends with the teacher's last layer but one.
    Raises RecipeError for a student of one layer, which has no intermediate state.
    """
    if student_layers < 2:
        raise RecipeError(
            f"a student of {student_layers} layer(s) has no intermediate state to compare",
            expected="a student of 2 layers or more",
            remedy="use a deeper student, or a method without intermediate states (kd, gkd, adkd)",
        )
    if layer_map in ("uniform", "skip"):
        students, teachers = layer_pairs(layer_map, student_layers, teacher_layers)
        return students[:-1], teachers[:-1]
    return layer_pairs(layer_map, student_layers - 1, teacher_layers - 1)
