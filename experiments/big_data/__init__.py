"""What a log costs to prepare and to train on, by its size: ``python -m experiments.big_data``."""
