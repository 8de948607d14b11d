"""Speed: genrec beside its peers, in one process, on the same data, in turns: ``python -m experiments.speed``."""
