"""Runs as jobs of a cluster: what is to do, in which jobs, and the engine that takes them.

A job is a command line and the keys of its runs, nothing else: no front process has to live, and
nothing is remembered beside the records and the engine's own queue.
"""
