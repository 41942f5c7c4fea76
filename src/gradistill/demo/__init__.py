"""The demonstration: its corpus of reviews, the grammar that generates them, and the command."""
