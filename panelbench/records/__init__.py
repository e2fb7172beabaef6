"""Exact keys, immutable records, the stage cache."""
