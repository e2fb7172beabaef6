"""Data sets: catalogue, download, reading, recipes, splits, synthetic data."""
