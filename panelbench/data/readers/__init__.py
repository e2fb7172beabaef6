"""Readers, one module each: how the files of one format become an AnnData, cells x genes.

A reader is the module of its name (``geo-10x-tar`` is ``geo_10x_tar.py``) and has a function
``read(files, *, option=...)``: the files by name, and the options an entry may set. It leaves ``X``
as CSR or dense float32, ``layers["counts"]`` where there are counts, what ``X`` is in ``uns["x"]``
and notes for people in ``uns["notes"]``. Modules that begin with an underscore are no readers.

Prepared data depend on the module of their reader and on what it imports, so a new reader, or a
change of another one, leaves them valid.
"""
