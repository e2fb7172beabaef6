"""The contracts of methods and evaluators as rules, and generated data to try them on."""
