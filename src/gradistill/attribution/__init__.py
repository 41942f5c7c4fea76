"""Targets, inner gradients, Integrated Gradients and token scores: pure, differentiable functions."""
