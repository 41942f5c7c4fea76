"""Fast attributions of many rows: rows of similar lengths are batched, within a budget of tokens and memory."""

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
from gradistill.models.teacher_loading import is_low_precision
from gradistill.signals.explained import explained_labels, explained_pass


@dataclass(frozen=True)
class RowAttributions:
    """One row's ``attributions`` of its real tokens, for the log-odds of ``label``.

    ``place`` is the index of the row. ``residual`` is the error of completeness as a share of ``|F(E) − F(0)|`` (NaN
    for gradient × input, which is not complete). ``nodes`` is the number of gradients that were computed.
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
    """Yield attributions at the embedding output of encoded rows, the longest rows first.

    They explain the log-odds of a label, or the prediction in a regression. The model computes in eval mode; its state
    is restored.

    Parameters:
        ``model``: a sequence classifier.
        ``rows``: encoded rows, with ``input_ids``.
        ``collate``: a ``Collator``, or another function from rows to a padded batch.
        ``method``: ``IntegratedGradients`` from a zero baseline or another, or ``GradientXInput``
            (``auditing.methods``).
        ``labels``: the label to explain for each row; by default the predicted label.
        ``tokens_at_once``: most tokens of a forward pass, padding included; a single longer row exceeds it.

    Raises RecipeError for a method that has scores only, ModelError for a model in low precision or a token
    classifier, and GradistillError for no rows, or for labels that do not match the rows.

    Example::

        for row in attribute(model, encoded.dataset, Collator(tokenizer)):
            print(row.place, row.attributions.norm(dim=-1))
    """
    if not isinstance(method, WithAttributions):
        raise RecipeError(
            f"The method {method.name} returns scores of tokens, not attributions.",
            expected="integrated_gradients or gradient_x_input",
            remedy="choose one of these methods",
        )
    if is_low_precision(model):
        raise ModelError(
            f"The weights of {type(model).__name__} have a lower precision than float32",
            expected="float32 or float64, as attributions would include rounding errors",
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
    # Integrated Gradients fill a forward pass with nodes of few rows, so batches are small and of similar lengths.
    budget = max(1, tokens_at_once // 8) if method.reruns else tokens_at_once
    probed = ProbedModel.of(model)
    batches = row_batches(
        rows, collate, probed.device, tokens_at_once=budget, labels=labels, draws=draws_tokens(method)
    )
    for row_batch in batches:
        mask = row_batch.batch.mask
        with frozen_eval(model):  # not around the yield: if iteration stops early, the model is restored
            forward = explained_pass(probed, row_batch.batch)
            integrated = method.attributions(forward, rows_at_once=max(1, tokens_at_once // mask.shape[1]))
            labels_of = explained_labels(forward).tolist()
        columns = zip(
            row_batch.places, labels_of, integrated.attributions, mask, *integrated[1:], strict=True
        )
        for place, label, attributions, real, residual, nodes in columns:
            yield RowAttributions(place, label, attributions[real], float(residual), int(nodes))
