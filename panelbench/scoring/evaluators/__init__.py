"""The evaluators that ship: one module per way to score a panel, found by `panelbench.registry`."""
