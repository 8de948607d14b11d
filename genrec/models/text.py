"""Item text as features of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from genrec.contracts import DataSpec, GenrecError
from genrec.nn.embedding import standardised


def text_features(spec: DataSpec) -> Tensor:
    """(N, F) the item vectors with mean 0 and variance 1 in every dimension; an error where there are none."""
    if spec.item_vectors is None:
        raise GenrecError("model.text=true needs item vectors and none were given. Choose an encoder.")
    return standardised(torch.from_numpy(spec.item_vectors))
