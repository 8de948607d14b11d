"""A look at a run before any data is read: do the settings of its model fit each other, and its trainer the model?"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from omegaconf import DictConfig

from genrec.config import instantiate
from genrec.contracts import DataSpec, GenrecError, RunContext
from genrec.data.columns import DenseOptions, Options, SequenceOptions, SparseOptions, target_of
from genrec.data.dataset import ROWS
from genrec.data.ragged import Ragged
from genrec.data.table import TableDataset
from genrec.features import FeatureSpec, SequenceField, SparseField, TaskSpec
from genrec.semantic_ids import SemanticIds

log = logging.getLogger("genrec")

_ITEMS, _LEVELS, _CODES, _WIDTH = 16, 4, 16, 32


def rehearse(config: DictConfig, trainer: Any, scheduler: Any, context: RunContext | None = None) -> None:
    """Raises ``GenrecError`` for what the configured objects refuse of each other.

    The model is built once on a tiny invented shop and thrown away: constructors know best what they refuse. An error
    of another kind may come from the size of the shop, so it is left to the real construction.
    """
    check_view(config)
    trainer.check_schedule(scheduler)
    data = instantiate(config.data, _convert_="all")  # which reads nothing yet
    try:
        model = instantiate(config.model, _partial_=True, _convert_="all")(invented_spec(data))
    except GenrecError:
        raise
    except Exception as error:
        log.debug("the model was not built on invented data: %s", error)
        return
    trainer.check_model(model)
    hardware: Any = None if context is None else context.hardware
    if hardware is not None and hardware.will_divide and hasattr(model, "named_modules"):
        from genrec.trainers.division import check_divisible

        check_divisible(model, hardware, context and context.optimizer, by_hand=trainer.averages_gradients)


def check_view(config: DictConfig) -> None:
    """Raises ``GenrecError`` where the data cannot be given in the form that the model reads."""
    from hydra.utils import get_class

    wanted = get_class(config.model._target_).view
    offered = getattr(get_class(config.data._target_), "views", None)
    if offered is None or wanted in offered:
        return
    model = str(config.model._target_).rpartition(".")[2]
    if wanted == ROWS:
        raise GenrecError(
            f"{model} predicts labels of the rows of a table, and the data chosen here are interactions of users and "
            "items. Choose a table: data=synthetic_clicks, data=frappe ..., or data=table data.path=<file>."
        )
    raise GenrecError(
        f"{model} learns from interactions of users and items, and the data chosen here are rows of a table. "
        "Choose data=synthetic, data=movielens ..., or data=folder data.path=<file>; or a model of rows (model=deepfm)."
    )


def invented_spec(data: Any = None) -> DataSpec:
    """A shop of 16 items with vectors and 4-level semantic IDs, and two users who bought some of them; with the fields
    and labels that a data set of rows declares."""
    codes = np.repeat(np.arange(_ITEMS)[:, None], _LEVELS, axis=1)
    vectors = np.random.default_rng(0).standard_normal((_ITEMS, _WIDTH)).astype(np.float32)
    train = Ragged.from_rows([list(range(8)), list(range(4, _ITEMS))])
    ids = SemanticIds(codes, (_CODES,) * _LEVELS, _LEVELS)
    features = invented_features(data) if isinstance(data, TableDataset) else None
    return DataSpec(2, _ITEMS, semantic_ids=ids, item_vectors=vectors, train=train, features=features)


def invented_features(data: TableDataset) -> FeatureSpec:
    """The declared fields, each with 16 ids; where others are to be inferred, one of each type stands for them, and
    those that a declared sequence names are taken for sparse."""
    options: dict[str, Options] = {name: item for name, item in data.declared.options.items() if item is not None}
    if data.infer:
        for item in data.declared.options.values():
            if isinstance(item, SequenceOptions) and item.pooling == "attention":
                _infer_target(item, options, data)
        options.update({name: data.declared.of_kind(name, "data.by_type") for name in ("dense", "sparse")})
        options["sequence"] = SequenceOptions(table="sparse", pooling="attention")
    sparse = {name: item for name, item in options.items() if isinstance(item, SparseOptions)}
    sequences = {name: item for name, item in options.items() if isinstance(item, SequenceOptions)}
    buckets = {name: 4 if item.compression != "none" else 0 for name, item in sparse.items()}
    return FeatureSpec(
        dense=tuple(name for name, item in options.items() if isinstance(item, DenseOptions)),
        sparse=tuple(
            SparseField(
                name=name, size=_ITEMS, table=item.table or name, compression=item.compression, buckets=buckets[name]
            )
            for name, item in sparse.items()
        ),
        sequences=tuple(
            SequenceField(
                name=name,
                size=_ITEMS,
                table=item.table or name,
                max_length=item.max_length,
                pooling=item.pooling,
                target=target_of(name, item, options),
            )
            for name, item in sequences.items()
        ),
        tasks=tuple(TaskSpec(name=label.name, kind=label.kind, given=label.given) for label in data.learned),
    )


def _infer_target(item: SequenceOptions, options: dict[str, Options], data: TableDataset) -> None:
    """Adds the field by which a sequence is weighed, where it is no declared one."""
    tables = {other.table for other in options.values() if isinstance(other, SparseOptions)}
    name = item.target or item.table
    if name is not None and name not in options and (item.target or name not in tables):
        options[name] = data.declared.of_kind("sparse", f"data.features.{name}")
