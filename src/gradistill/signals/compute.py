"""All signals of one model and one batch, from one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from gradistill.batch import Batch
from gradistill.models.probe import Probe
from gradistill.signals.base import Signal
from gradistill.signals.forward_pass import ForwardPass, Needs

SignalValues = Mapping[Signal, Tensor]


def compute_signals(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    signals: Iterable[Signal],
    *,
    create_graph: bool,
    share_views: bool = True,
) -> SignalValues:
    """Compute signals from one forward pass and one call for all inner gradients.

    With ``create_graph`` all values keep their graph (a student in training); without it they are detached. Integrated
    Gradients of several steps run the model again. Without ``share_views`` every view takes its own inner gradient.
    Raises ModelError where the model cannot record what a signal needs.
    """
    wanted = tuple(dict.fromkeys(signals))
    needs = Needs.union(signal.needs() for signal in wanted)
    with torch.set_grad_enabled(create_graph or bool(needs.targets)):
        forward = ForwardPass.run(
            model, probe, batch, needs, create_graph=create_graph, share_views=share_views
        )
        values = {signal: signal.compute(forward) for signal in wanted}
    return values if create_graph else {signal: tensor.detach() for signal, tensor in values.items()}
