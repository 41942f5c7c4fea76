"""The step, the start-up check and the trainer."""
