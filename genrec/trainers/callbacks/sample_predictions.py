"""Shows what the model recommends to a few users as it learns."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from genrec.artifacts import write_text
from genrec.contracts import IGNORE, VAL, GenrecError
from genrec.nn.several import alone
from genrec.tables import to_text
from genrec.trainers.evaluation import evaluating

logger = logging.getLogger("genrec.trainers")

_SHOWN, _WIDTH, _NO_LIMIT = 3, 150, 1_000_000


class SamplePredictions(pl.Callback):
    """Every ``every_epochs`` writes the last items, the hidden one and the ``k`` recommended ones of the same
    ``num_users`` validation users to ``samples/epoch_0001.txt`` of the run folder, to the log and to TensorBoard.

    The hidden item is marked with a star where it is recommended. Items have titles where the data has them.
    """

    def __init__(self, *, num_users: int = 4, k: int = 5, every_epochs: int = 1) -> None:
        for name, value in (("num_users", num_users), ("k", k), ("every_epochs", every_epochs)):
            if value < 1:
                raise GenrecError(f"{name}={value}: give a number of 1 or more.")
        self.num_users = num_users
        self.k = k
        self.every_epochs = every_epochs

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not hasattr(pl_module.model, "recommend"):
            raise GenrecError(
                f"The callback sample_predictions shows recommendations, and {type(pl_module.model).__name__} makes "
                "none. Use another choice of callbacks."
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = pl_module.policy.current_epoch
        if epoch % self.every_epochs:
            return
        pl_module.bring()
        if not pl_module.world.leads:
            return
        text = to_text(self.table(pl_module), width=_WIDTH)
        folder = pl_module.policy.context.output_dir / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"epoch_{epoch:04d}.txt", text)
        logger.info("%s", text)
        for sink in trainer.loggers:
            add_text = getattr(getattr(sink, "experiment", None), "add_text", None)
            if add_text is not None:
                add_text("samples", f"<pre>{text}</pre>", trainer.global_step)

    def table(self, learner: Any) -> Table:
        """One user per row."""
        model, policy = learner.model, learner.policy
        limit = getattr(model, "max_history", None) or _NO_LIMIT
        batches = learner.view.eval_batches(
            VAL,
            batch_size=self.num_users,
            max_history=limit,
            filter_seen=policy.filter_seen,
            max_users=self.num_users,
            seed=policy.context.seed,
        )
        titles = policy.titles
        table = Table(
            title=f"Recommendations after epoch {policy.current_epoch}", title_justify="left", box=box.SIMPLE_HEAD
        )
        for column in ("history", "hidden", "recommended"):
            table.add_column(column, overflow="fold")

        def name(item: int) -> str:
            return escape(f"item {item}" if titles is None else titles[item])

        with alone(), evaluating(model, policy.context.seed):
            for batch, targets in batches:
                found = model.recommend(batch.to(learner.device), self.k).items.cpu()
                for items, length, wanted, best in zip(
                    batch.items.tolist(), batch.lengths.tolist(), targets.tolist(), found.tolist(), strict=True
                ):
                    hidden = {item for item in wanted if item != IGNORE}
                    listed = [name(item) + ("*" if item in hidden else "") for item in best if item != IGNORE]
                    past = items[max(0, length - _SHOWN) : length]
                    table.add_row(" > ".join(map(name, past)), ", ".join(map(name, sorted(hidden))), "\n".join(listed))
        return table
