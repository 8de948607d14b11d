"""Extras for ``conf/callbacks``: one purpose per file. Stopping and checkpoints are the trainer's own."""
