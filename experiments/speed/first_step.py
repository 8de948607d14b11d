"""A callback that ends the process when the first training step is done, so that the way there can be timed."""

from __future__ import annotations

import os
from typing import Any

import pytorch_lightning as pl


class FirstStep(pl.Callback):
    """Leaves at once and with success: nothing after the step is of interest."""

    def on_train_batch_end(self, *arguments: Any, **options: Any) -> None:
        os._exit(0)
