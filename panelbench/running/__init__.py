"""Runs in supervised processes: executor, supervisor, worker, and where runs stand."""
