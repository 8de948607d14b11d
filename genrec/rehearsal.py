"""A look at a run before any data is read: do the settings of its model fit each other, and its trainer the model?"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from omegaconf import DictConfig

from genrec.config import instantiate
from genrec.contracts import DataSpec, GenrecError
from genrec.data.ragged import Ragged
from genrec.semantic_ids import SemanticIds

log = logging.getLogger("genrec")

_ITEMS, _LEVELS, _CODES, _WIDTH = 16, 4, 16, 32


def rehearse(config: DictConfig, trainer: Any, scheduler: Any) -> None:
    """Raises ``GenrecError`` for what the configured objects refuse of each other.

    The model is built once on a tiny invented shop and thrown away: constructors know best what they refuse. An error
    of another kind may come from the size of the shop, so it is left to the real construction.
    """
    trainer.check_schedule(scheduler)
    try:
        model = instantiate(config.model, _partial_=True, _convert_="all")(invented_spec())
    except GenrecError:
        raise
    except Exception as error:
        log.debug("the model was not built on invented data: %s", error)
        return
    trainer.check_model(model)


def invented_spec() -> DataSpec:
    """A shop of 16 items with vectors and 4-level semantic IDs, and two users who bought some of them."""
    codes = np.repeat(np.arange(_ITEMS)[:, None], _LEVELS, axis=1)
    vectors = np.random.default_rng(0).standard_normal((_ITEMS, _WIDTH)).astype(np.float32)
    train = Ragged.from_rows([list(range(8)), list(range(4, _ITEMS))])
    ids = SemanticIds(codes, (_CODES,) * _LEVELS, _LEVELS)
    return DataSpec(num_users=2, num_items=_ITEMS, semantic_ids=ids, item_vectors=vectors, train=train)
