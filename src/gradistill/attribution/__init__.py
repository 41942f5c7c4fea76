"""Targets, inner gradients, Integrated Gradients and scores: pure, differentiable functions."""
