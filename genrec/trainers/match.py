"""MatchTrainer: an AdvancedTrainer for models whose scores are products, and what is done with their vectors."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from genrec.annotations import Count
from genrec.artifacts import atomic_path
from genrec.contracts import TEST, GenrecError, HistoryBatch, RunContext
from genrec.data.sequences import history_batch
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.ann import ANNIndex, ANNKind, ann_recall, require_faiss
from genrec.trainers.base import view_of
from genrec.trainers.evaluation import device_of, evaluating

logger = logging.getLogger("genrec.trainers")

USER, ITEM = "user", "item"


@dataclass(kw_only=True)
class MatchTrainer(AdvancedTrainer):
    """Trains and tests as AdvancedTrainer does, over the whole catalogue, and hands out the vectors of both towers.

    ``export_embeddings`` writes ``user_embeddings.parquet``, of users after everything that is known of them, and
    ``item_embeddings.parquet`` into the run folder after the test: what a vector data base needs to serve the model.
    ``ann`` finds items by an index of faiss as well, and the test tells which share of the exact ``ann_k`` best it
    finds.
    """

    export_embeddings: bool = False
    ann: ANNKind = "none"
    ann_k: Count = 10

    def check_model(self, model: Any) -> None:
        if not (hasattr(model, "encode_users") and hasattr(model, "encode_items")):
            raise GenrecError(
                f"trainer=match needs vectors of users and items whose products are the scores, and "
                f"{type(model).__name__} has none (encode_users, encode_items). Use trainer=advanced."
            )
        if self.ann != "none":
            require_faiss()
        super().check_model(model)

    def evaluate(self, model: nn.Module, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
        """Ranking metrics and, where the test is asked for an index, ``test/ann_recall@k``."""
        metrics = super().evaluate(model, view, part, progress=progress)
        if part == TEST and metrics and self.ann != "none":
            metrics[f"{part}/ann_recall@{self.ann_k}"] = self.evaluate_ann(model, view)
        return metrics

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Test metrics; then the vectors are written, if they are wanted."""
        metrics = super().test(model, data, context)
        if self.export_embeddings:
            for mode in (USER, ITEM):
                path = self.context.output_dir / f"{mode}_embeddings.parquet"
                shape = self.inference_embedding(model, data, mode, path).shape
                logger.info("%s: vectors of shape %s", path, " x ".join(map(str, shape)))
        return metrics

    def evaluate_ann(self, model: nn.Module, data: Any) -> float:
        """Mean share of the exact ``ann_k`` best items that the index finds, for the users of the test.

        Nothing is masked: an index knows nothing of histories.
        """
        view = view_of(data, model)
        items = self.inference_embedding(model, view, ITEM)
        if self.ann_k > len(items):
            raise GenrecError(f"trainer.ann_k={self.ann_k}: give 1 to {len(items)}, the size of the catalogue.")
        batches = view.eval_batches(TEST, batch_size=self.eval_batch_size, max_history=_longest(model))
        users = _encoded(model, (batch for batch, _ in batches))
        index = ANNIndex(items, self.ann)
        begin = time.perf_counter()
        found = index.search(users, self.ann_k)
        seconds = time.perf_counter() - begin
        recall = ann_recall(users, items, found, self.ann_k)
        logger.info(
            "ann=%s: %.4f of the exact top %d found, %.3f ms per user",
            self.ann, recall, self.ann_k, 1000 * seconds / len(users),
        )  # fmt: skip
        return recall

    def inference_embedding(
        self, model: nn.Module, data: Any, mode: Literal["user", "item"] = USER, path: str | Path | None = None
    ) -> np.ndarray:
        """The vectors (U, D) of all users, (U, K, D) where they have interests, or those (N, D) of all items, float32.

        A score is a product, of interests the largest. Users are as all that the data knows of them makes them, held
        out items included, so these vectors are for serving and not for a test. ``path`` is where to write them as
        Parquet too: ``user_id`` or ``item_id``, as in the data where ``data`` is a data set, and ``vector``.
        The model is left in the mode that it was in.
        """
        if mode not in (USER, ITEM):
            raise GenrecError(f"mode={mode!r}: choose one of user, item.")
        self.check_model(model)
        view: Any = view_of(data, model)
        if mode == ITEM:
            with evaluating(model):
                # A copy: a table that is scored as it is would otherwise be handed out itself.
                vectors = model.encode_items().float().cpu().numpy().copy()  # pyright: ignore[reportCallIssue]
        else:
            vectors = _encoded(model, self._histories(view, _longest(model)))
        if path is not None and self.hardware_now.world.leads:
            log = getattr(data, "log", None)
            ids = np.arange(len(vectors)) if log is None else getattr(log, f"{mode}_ids")
            write_vectors(Path(path), f"{mode}_id", ids, vectors)
        return vectors

    def _histories(self, view: Any, max_history: int) -> Iterator[HistoryBatch]:
        """Everything known of every user, in the order of users."""
        history = view.history("all")
        for begin in range(0, len(history), self.eval_batch_size):
            users = np.arange(begin, min(begin + self.eval_batch_size, len(history)))
            yield history_batch(users, history.take(users), max_history=max_history, filter_seen=False)


def write_vectors(path: Path, column: str, ids: np.ndarray, vectors: np.ndarray) -> None:
    """A Parquet file, whole or not at all: ``ids`` (n,) in ``column``; ``vector``, lists of D float32 or of K such."""
    import polars as pl

    kind: Any = pl.Array(pl.Float32, vectors.shape[1:])
    frame = pl.DataFrame({column: pl.Series(ids), "vector": pl.Series(vectors, dtype=kind)})
    with atomic_path(path) as temporary:
        frame.write_parquet(temporary)


def _encoded(model: Any, batches: Iterator[HistoryBatch]) -> np.ndarray:
    """The vectors of the users of all batches, float32."""
    device = device_of(model)
    with evaluating(model):
        return np.concatenate([model.encode_users(batch.to(device)).float().cpu().numpy() for batch in batches])


def _longest(model: Any) -> int:
    return int(model.max_history)
