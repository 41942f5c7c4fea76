"""What a step must cost: the matrix products of a transformer encoder, counted on paper (docs/performance.md).

A linear layer takes one product forward and two backward. Each inner gradient adds one, and two for its double
backward: 3 + 3 V products for V inner gradients. The two products of attention take 3 + 6 V: both their factors carry
gradients. Embedding look-ups, norms and activations multiply no matrices and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoder:
    """An encoder of equal blocks with a pooled head on one position, and the batch that it reads.

    ``hidden`` is its width, ``inner`` that of its feed-forward layers; ``tokens`` is the padded length of a row.
    """

    layers: int
    hidden: int
    inner: int
    labels: int
    rows: int
    tokens: int

    def forward_flops(self, *, trimmed: bool = False) -> int:
        """Floating-point operations of one forward pass (two for each multiplication and addition)."""
        return 2 * self.rows * (self._linear(trimmed) + self._attention(trimmed))

    def step_flops(self, inner_gradients: int = 0, *, trimmed: bool = False) -> int:
        """Those of one training step: forward, inner gradients, and the backward pass through both.

        ``trimmed``: the last block computes one row (``models.last_block``).
        """
        linear = (3 + 3 * inner_gradients) * self._linear(trimmed)
        attention = (3 + 6 * inner_gradients) * self._attention(trimmed)
        return 2 * self.rows * (linear + attention)

    def _linear(self, trimmed: bool) -> int:
        """Multiplications in linear layers for one row of the batch."""
        square, feed_forward = self.hidden**2, 2 * self.hidden * self.inner
        block = self.tokens * (4 * square + feed_forward)
        last = self.tokens * 2 * square + 2 * square + feed_forward if trimmed else block
        head = square + self.hidden * self.labels
        return (self.layers - 1) * block + last + head

    def _attention(self, trimmed: bool) -> int:
        """Multiplications of scores and of their sums of values, for one row of the batch."""
        block = 2 * self.tokens**2 * self.hidden
        return (self.layers - 1) * block + (block // self.tokens if trimmed else block)
