"""The work of each stage: preprocess, select, evaluate."""
