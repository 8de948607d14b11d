"""Interaction logs larger than memory: prepared once into arrays on disk, of which a run reads what it needs."""

from genrec.data.large.dataset import LargeDataset
from genrec.data.large.source import LargeSource

__all__ = ["LargeDataset", "LargeSource"]
