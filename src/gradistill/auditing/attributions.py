"""The attributions of many rows, fast: rows of like length together, within a budget of tokens and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from gradistill.auditing.methods import Method, WithAttributions, draws_tokens
from gradistill.auditing.methods.integrated_gradients import IntegratedGradients
from gradistill.data.batching import Collate, Rows, row_batches
from gradistill.errors import ModelError, RecipeError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.probe import ProbedModel
from gradistill.models.teacher_loading import is_narrow
from gradistill.signals.explained import explained_labels, explained_pass


@dataclass(frozen=True)
class RowAttributions:
    """What one row's logits rest on: ``attributions`` of its real tokens, for the log-odds of ``label``.

    ``place`` is the row's place among all rows. ``residual`` is the share of ``|F(E) − F(0)|`` by which the
    attributions miss completeness (NaN for gradient × input, which does not claim it), ``nodes`` how many gradients
    they took.
    """

    place: int
    label: int
    attributions: Float[Tensor, "token hidden"]
    residual: float
    nodes: int


def attribute(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    method: Method = IntegratedGradients("auto", baseline="zero"),  # noqa: B008 (frozen)
    labels: Sequence[int] | None = None,
    tokens_at_once: int = 1024,
) -> Iterator[RowAttributions]:
    """Attributions at the embedding output of encoded rows, as they are done: the longest rows first.

    What is explained are the log-odds of a label; the prediction in a regression. The model computes in eval mode and
    is left as it was.

    Parameters:
        ``model``: a sequence classifier.
        ``rows``: encoded rows, with ``input_ids``.
        ``collate``: a ``Collator``, or another function from rows to a padded batch.
        ``method``: ``IntegratedGradients`` from a zero baseline or another, or ``GradientXInput``
            (``auditing.methods``).
        ``labels``: the label to explain, one per row; by default the one that the model predicts.
        ``tokens_at_once``: no forward pass holds more tokens with their padding, but for a longer row alone.

    Raises RecipeError for a method that has scores only, ModelError for a model in a narrow type or one that labels
    tokens, and GradistillError for no rows, or labels that are not those of the rows.

    Example::

        for row in attribute(model, encoded.dataset, Collator(tokenizer)):
            print(row.place, row.attributions.norm(dim=-1))
    """
    if not isinstance(method, WithAttributions):
        raise RecipeError(
            f"The method {method.name} returns scores of tokens and no attributions.",
            expected="integrated_gradients or gradient_x_input",
            remedy="choose one of these",
        )
    if is_narrow(model):
        raise ModelError(
            f"The weights of {type(model).__name__} are of a type narrower than float32",
            expected="float32 or float64: rounding would be explained too",
            remedy="load it with dtype=torch.float32, or call model.float()",
        )
    return _attributions(model, rows, collate, method, labels, tokens_at_once)


def _attributions(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    method: WithAttributions,
    labels: Sequence[int] | None,
    tokens_at_once: int,
) -> Iterator[RowAttributions]:
    # Nodes fill the forward passes of Integrated Gradients: few rows, of nearly equal length, share a batch.
    budget = max(1, tokens_at_once // 8) if method.reruns else tokens_at_once
    probed = ProbedModel.of(model)
    batches = row_batches(
        rows, collate, probed.device, tokens_at_once=budget, labels=labels, draws=draws_tokens(method)
    )
    for some in batches:
        mask = some.batch.mask
        with frozen_eval(model):  # not around the yield: whoever stops iterating leaves the model as it was
            forward = explained_pass(probed, some.batch)
            integrated = method.attributions(forward, rows_at_once=max(1, tokens_at_once // mask.shape[1]))
            labels_of = explained_labels(forward).tolist()
        columns = zip(some.places, labels_of, integrated.attributions, mask, *integrated[1:], strict=True)
        for place, label, attributions, real, residual, nodes in columns:
            yield RowAttributions(place, label, attributions[real], float(residual), int(nodes))
