"""The training step, the start-up check of second-order gradients, and the trainer."""
