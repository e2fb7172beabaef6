"""Selection methods: one module or sub-package per method; copy one, edit it, and it is there."""
