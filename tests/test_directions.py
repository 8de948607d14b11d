"""One rule says what is better of a metric: trainers, sweeps and reports all ask it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import genrec
from genrec.directions import cost_of, instead_of_ratio, is_ratio, metric_mode
from genrec.metrics import beyond_accuracy, binary, ranking, regression

SMALLER = (
    *("train/loss", "val/loss", "test/loss", "train/loss/click", "train/loss/auc", "train/loss_step"),
    *("val/error@5", "val/mse_per_sample", "val/log_loss", "val/click/log_loss", "buy_given_click/ece"),
    *("train/loss_level_0", "train/reconstruction", "val/reconstruction", "train/quantization", "train/kl", "val/kl"),
    *("train/negative_log_likelihood", "train/regularisation", "train/l2", "train/ranking", "train/contrast"),
    *("train/clean", "train/adversarial", "test/mse", "test/rmse", "test/sse_per_sample"),
    *("seconds/total", "resources/parameters", "peak/fit"),
    *("tokenizer/reconstruction_error", "tokenizer/num_colliding_items", "all/largest_collision_group"),
)
LARGER = (
    *("val/ndcg@10", "val/auc", "val/loss/auc", "loss/gauc", "val/click/auc", "train/recall@10", "val/niece"),
    *("tokenizer/usage_rate", "tokenizer/perplexity/level_0", "all/unique_share", "test/cosine_similarity"),
)
NEITHER = ("beta", "difficulty")  # parts that are reported beside the losses, and are none


@pytest.mark.parametrize(("names", "mode"), [(SMALLER, "min"), (LARGER, "max")])
def test_every_metric_has_its_direction(names: tuple[str, ...], mode: str) -> None:
    assert {name: metric_mode(name) for name in names} == dict.fromkeys(names, mode)


def test_the_metrics_of_rows_and_lists_have_their_directions() -> None:
    smaller = {"log_loss", "ece", "normalised_entropy", "brier", "mse", "rmse", "mae", "loss"}
    for kind in (*binary.METRICS, *regression.METRICS, "loss"):
        for name in (kind, f"val/{kind}", f"test/click/{kind}", f"val/buy_given_click/{kind}"):
            assert metric_mode(name) == ("min" if kind in smaller else "max"), name
    for kind in (*ranking.METRICS, *beyond_accuracy.METRICS):
        assert metric_mode(f"val/{kind}@10") == ("min" if kind == "gini" else "max"), kind


def test_every_part_of_a_loss_that_the_code_reports_is_known_to_be_one() -> None:
    """Whoever adds a part says here or in the rule what is better of it."""
    root = Path(genrec.__file__).parent
    found = {part for path in root.rglob("*.py") for part in parts_of(ast.parse(path.read_text(encoding="utf-8")))}
    assert {"loss/", "loss_level_", "kl", "l2", "ranking"} <= found
    names = {f"train/{part}{'0' if part.endswith(('/', '_')) else ''}" for part in found - set(NEITHER)}
    assert {name for name in names if metric_mode(name) == "max"} == set()


def parts_of(tree: ast.AST) -> set[str]:
    """The keys, or their beginnings, of what is assigned to ``parts`` where losses are made."""
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        if not any(isinstance(call.func, ast.Name) and call.func.id in ("Losses", "replace") for call in calls):
            continue
        for node in ast.walk(function):
            keys = node.keys if isinstance(node, ast.Dict) else [node.key] if isinstance(node, ast.DictComp) else []
            for key in keys:
                first = key.values[0] if isinstance(key, ast.JoinedStr) else key
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value[-1:] != ".":
                    found.add(first.value)
    return found


def test_a_ratio_is_best_at_one() -> None:
    assert is_ratio("calibration") and is_ratio("val/click/calibration")
    assert not is_ratio("val/recalibration") and not is_ratio("val/auc")
    assert sorted([0.2, 4.0, 0.9, 1.05, 0.0], key=lambda value: cost_of("test/calibration", value)) == [
        *(1.05, 0.9, 4.0, 0.2, 0.0)
    ]
    assert sorted([0.9, 4.0], key=lambda value: cost_of("val/calibration", value, "max")) == [4.0, 0.9]
    assert instead_of_ratio("val/click/calibration") == "val/click/ece"
    assert cost_of("val/auc", 0.7) < cost_of("val/auc", 0.6)
    assert cost_of("val/log_loss", 0.6) < cost_of("val/log_loss", 0.7)
