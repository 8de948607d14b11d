"""genrec: a Hydra-configured experiment framework for recommendation, generative first."""

__version__ = "0.1.0"
