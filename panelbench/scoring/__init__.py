"""Ways to score a panel, metrics, and the comparison of methods."""
