"""RecBole 1.2.1 as a peer: what it needs to run beside NumPy 2 and today's torch, and its SASRec on our data."""

from __future__ import annotations

import importlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from experiments.speed.setting import Setting
    from genrec.data.ragged import Ragged
    from genrec.data.sequences import SequencesView

METRICS, TOP_K = ["Recall", "NDCG", "Hit", "MRR", "Precision"], [5, 10, 20]

# Names that NumPy 1.24 and 2.0 took away and RecBole still uses.
_OLD_NAMES = {
    "float": float, "int": int, "bool": bool, "object": object, "complex": complex, "str": str, "unicode": str,
    "long": int, "bool8": np.bool_, "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_,
}  # fmt: skip


@contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """NumPy's old names, ``torch.load`` of whole objects, no command line, no chatter; all undone afterwards.

    RecBole also writes to the working directory, which is ``folder`` meanwhile.
    """
    added = [name for name in _OLD_NAMES if name not in np.__dict__]
    for name in added:
        setattr(np, name, _OLD_NAMES[name])
    from scipy.sparse import dok_matrix

    update = vars(dok_matrix).get("_update")
    dok_matrix._update = _update  # pyright: ignore[reportAttributeAccessIssue]
    load, argv, level = torch.load, sys.argv, logging.root.level
    torch.load = lambda *args, **options: load(*args, **{"weights_only": False, **options})
    sys.argv = sys.argv[:1]
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), chdir(folder):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.load, sys.argv = load, argv
        if update is None:
            del dok_matrix._update  # pyright: ignore[reportAttributeAccessIssue]
        else:
            dok_matrix._update = update  # pyright: ignore[reportAttributeAccessIssue]
        logging.root.setLevel(level)
        for name in added:
            delattr(np, name)


def _update(matrix: Any, entries: dict[tuple[int, int], float]) -> None:
    """What SciPy's dictionary of keys had before 1.13, and RecBole's LightGCN calls."""
    for place, value in entries.items():
        matrix[place] = value


class RecBole:
    """A trainer, a model and loaders of RecBole, on the interactions of a view in their stored order."""

    def __init__(self, setting: Setting, *, batch_size: int = 2048, eval_batch_size: int = 4096) -> None:
        from experiments.speed.training_sasrec import DIM, DROPOUT, HEADS, INNER, LAYERS, LENGTH

        folder = setting.folder / "recbole" / "data"
        _write_pairs(setting.view.history("all"), folder)
        self.folder = folder
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        config = {
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "metrics": METRICS,
            "topk": TOP_K,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": LENGTH,
            "hidden_size": DIM,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "inner_size": INNER,
            "hidden_dropout_prob": DROPOUT,
            "attn_dropout_prob": DROPOUT,
            "train_batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
        }
        self.training, self.test, self.trainer = _set_up("sequential_recommender.sasrec", "SASRec", folder, config)
        self.num_targets = len(self.training.dataset)

    def training_batches(self, count: int) -> list[Any]:
        """The first batches of a shuffled epoch."""
        with surroundings(self.folder):
            return [batch for batch, _ in zip(self.training, range(count), strict=False)]

    def evaluate(self) -> dict[str, float]:
        """Metrics of the model over the whole catalogue, for all users' test items."""
        with surroundings(self.folder):
            return dict(self.trainer.evaluate(self.test, load_best_model=False))


class GraphPeer:
    """RecBole's LightGCN on the training edges of a view, its own sampler and trainer."""

    def __init__(
        self, setting: Setting, view: SequencesView, name: str, *, dim: int, layers: int, batch_size: int
    ) -> None:
        folder = setting.folder / re.sub(r"\W+", "-", f"recbole {name}") / "data"
        _write_pairs(view.train, folder)
        self.folder = folder
        config = {
            "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "mode": "full", "group_by": None},
            "embedding_size": dim,
            "n_layers": layers,
            "reg_weight": 1e-4,
            "train_batch_size": batch_size,
        }
        self.training, _, self.trainer = _set_up("general_recommender.lightgcn", "LightGCN", folder, config)

    def train_epoch(self) -> None:
        with surroundings(self.folder):
            self.trainer._train_epoch(self.training, 0)


def _set_up(module: str, name: str, folder: Path, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The training loader, the test loader and the trainer of a model of RecBole, on the atomic file in ``folder``."""
    config = {
        "data_path": str(folder.parent),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "checkpoint_dir": str(folder / "saved"),
        "use_gpu": False,
        "show_progress": False,
        "reproducibility": False,
        **options,
    }
    threads = torch.get_num_threads()
    with surroundings(folder):
        data = importlib.import_module("recbole.data")
        network = getattr(importlib.import_module(f"recbole.model.{module}"), name)
        settings = importlib.import_module("recbole.config").Config(model=name, dataset="data", config_dict=config)
        training, _, test = data.data_preparation(settings, data.create_dataset(settings))
        trainer = importlib.import_module("recbole.trainer").Trainer(settings, network(settings, training.dataset))
    torch.set_num_threads(threads)
    return training, test, trainer


def _write_pairs(whole: Ragged, folder: Path) -> None:
    """Rows of items as RecBole's atomic file; the place in the row stands for the time."""
    path = folder / "data.inter"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    users = whole.row_of_value
    places = np.arange(len(users)) - whole.offsets[users]
    table = np.column_stack([users, whole.values, places])
    header = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt(path, table, fmt="%d", delimiter="\t", header=header, comments="")
