"""Which teacher layer stands beside which student layer, for copying weights and for comparing states."""

from __future__ import annotations

from typing import Literal

from gradistill.errors import RecipeError

LayerMap = Literal["skip", "first", "last"] | tuple[int, ...]


def map_layers(layer_map: LayerMap, wanted: int, available: int) -> tuple[int, ...]:
    """``wanted`` of the ``available`` layers, counted from 1 and rising.

    ``skip`` takes them evenly and ends with the last (6 to 3: 2, 4, 6), ``first`` and ``last`` take a run from
    one end, a list names them. Raises RecipeError where they do not exist or do not count ``wanted``.
    """
    if wanted > available:
        raise RecipeError(
            f"{wanted} layers were asked for and the teacher has {available}",
            expected=f"at most {available}",
            remedy="make the student shallower, or list layers in layer_map",
        )
    if layer_map == "skip":
        return tuple(round(k * available / wanted) for k in range(1, wanted + 1))
    if layer_map == "first":
        return tuple(range(1, wanted + 1))
    if layer_map == "last":
        return tuple(range(available - wanted + 1, available + 1))
    if len(layer_map) != wanted or any(not 1 <= k <= available for k in layer_map):
        raise RecipeError(
            f"the layer map {list(layer_map)} came for {wanted} layers",
            expected=f"{wanted} numbers from 1 to {available}",
            remedy="list one teacher layer for each student layer",
        )
    return tuple(layer_map)


def intermediate_pairs(
    layer_map: LayerMap, student_layers: int, teacher_layers: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Student layers 1 … L_s − 1 and the teacher's beside them (PKD section 3.2; 6 beside 12: 2, 4, …, 10).

    The last layer is left out: the logits speak for it. ``last`` ends with the teacher's last layer but one.
    Raises RecipeError for a student of one layer, which has no intermediate state.
    """
    if student_layers < 2:
        raise RecipeError(
            f"a student of {student_layers} layer(s) has no intermediate state to compare",
            expected="a student of 2 layers or more",
            remedy="use a deeper student, or a method without intermediate states (kd, gkd, adkd)",
        )
    students = tuple(range(1, student_layers))
    if layer_map == "skip":
        teachers = map_layers("skip", student_layers, teacher_layers)[:-1]
    else:
        teachers = map_layers(layer_map, student_layers - 1, teacher_layers - 1)
    return students, teachers
