from __future__ import annotations

import json

import numpy as np
import polars as pl

from genrec.data.columns import Declared
from genrec.data.fitted_features import FeatureFit
from genrec.data.labels import declared_labels
from genrec.data.summary import Summary

FRAME = pl.DataFrame(
    {
        "user": ["a", "b", "a", "c", "d", "a"],
        "click": [1, 0, None, 1, 0, 1],
        "buy": [1, 1, 0, 0, 0, 0],
        "spend": [2.0, 4.0, 0.0, None, 8.0, 1.0],
    }
)
PARTS = np.array([0, 0, 0, 1, 2, 3], dtype=np.uint8)
LABELS = declared_labels({"click": None, "buy": {"given": "click"}, "spend": {"kind": "regression"}})


def summary_and_features(pieces: int):
    options = {name: item for name, item in Declared({"user": "sparse"}).options.items() if item is not None}
    fit = FeatureFit(options, list(LABELS.values()))
    fit.add(FRAME.head(3), np.arange(3))
    fitted = fit.finish()
    summary = Summary.of(fitted)
    for rows in np.array_split(np.arange(6), pieces):
        summary.add(fitted.transform(FRAME[rows]), PARTS[rows])
    return summary, fitted


def test_lines_say_rows_rates_and_what_is_odd():
    summary, fitted = summary_and_features(1)
    assert summary.lines(fitted, ("train", "val", "test"), mapped=False) == [
        "train: 3 rows, 50.00 % click (1 not known), 66.67 % buy, mean spend 2",
        "val: 1 rows, 100.00 % click, 0.00 % buy, spend not known",
        "test: 1 rows, 0.00 % click, 0.00 % buy, mean spend 8",
        "left out by the split: 1 rows",
        "0 dense, 1 sparse, 0 sequence fields; most ids: user 3",
        "val: ids unknown to training, or missing: user 100.0 %",
        "test: ids unknown to training, or missing: user 100.0 %",
        "buy without click, which it is given: 1 rows",
    ]


def test_counts_do_not_depend_on_pieces_and_survive_json():
    whole, fitted = summary_and_features(1)
    pieces, _ = summary_and_features(4)
    again = Summary.from_state(json.loads(json.dumps(pieces.state())))
    names = ("train", "val", "test")
    assert again.lines(fitted, names, mapped=True)[:-1] == whole.lines(fitted, names, mapped=False)
