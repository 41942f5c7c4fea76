"""The demonstration: its corpus of reviews, the grammar that writes them, and the command. No other package uses it."""
