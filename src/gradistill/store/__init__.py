"""Stores of teacher signals on disk: written once, verified when opened."""
