"""The commands as functions, each readable from top to bottom."""
