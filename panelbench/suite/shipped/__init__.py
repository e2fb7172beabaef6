"""Suites that ship with panelbench, one YAML file each."""
