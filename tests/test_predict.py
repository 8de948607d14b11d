"""From a table of one's own to predictions for new rows: the page on ranking, done."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from genrec.artifacts import read_json
from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.sources.synthetic_clicks import SyntheticClicksSource
from genrec.pipeline import execute, load_run
from genrec.predict import Predictor, answer, latest_run, main, parse
from genrec.trainers import CTRTrainer

FAST = ["trainer.max_epochs=2", "logger=none", "hardware=cpu", "progress=false", "hardware.num_threads=1"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with clicks.csv and the configuration that the page on ranking shows."""
    folder = tmp_path_factory.mktemp("shop")
    page = (repository / "docs" / "ranking.md").read_text(encoding="utf-8")
    [text] = re.findall(r"<!-- file: mine/data/shop.yaml -->\n```yaml\n(.*?)```", page, re.S)
    (folder / "mine" / "data").mkdir(parents=True)
    (folder / "mine" / "data" / "shop.yaml").write_text(text.replace("clicks.csv", str(folder / "clicks.csv")))
    source = SyntheticClicksSource(num_users=40, num_items=60, num_rows=3000)
    frame = pl.concat(list(source.chunks())).with_columns(
        pl.col("history").list.eval(pl.element().cast(pl.String)).list.join("|"),
        pl.col("device").cast(pl.String).replace({"0": "at"}).alias("country"),
        pl.lit("a note").alias("note"),
    )
    frame = frame.select("user_id", "item_id", "country", "price", "age", "history", "note", time="timestamp",
                         clicked="click", bought="buy", spend="spend")  # fmt: skip
    frame.write_csv(folder / "clicks.csv")
    return folder


def run(shop: Path, name: str, *overrides: str) -> Any:
    places = [f"runs_dir={shop / 'runs'}", f"cache_dir={shop / 'cache'}"]
    config = compose_config(
        ["data=shop", "split=global_time", *places, *FAST, *overrides],
        config_dir=shop / "mine",
        output_dir=shop / "runs" / name,
    )
    return execute(config)


@pytest.fixture(scope="module")
def finished(shop: Path) -> Path:
    return run(shop, "din", "model=din", "trainer=ctr", "trainer.export_predictions=true", "baselines=null").folder


def test_a_run_leaves_what_predictions_need(shop: Path, finished: Path) -> None:
    final = read_json(finished / "metrics.json")["final"]
    assert {"test/auc", "test/gauc", "test/log_loss", "test/calibration", "val/auc"} <= final.keys()
    assert 0.5 < final["test/auc"] < 1
    assert read_json(finished / "features.json")["group"] == "user_id"
    assert "vocabularies, the largest" in (finished / "run.log").read_text()
    assert latest_run(shop / "runs") == finished


def test_predictions_need_the_run_folder_only_and_are_those_of_the_run(shop: Path, finished: Path) -> None:
    """Fault of an original: inference rebuilt its vocabulary from other data, so ids meant other things."""
    alone = shop / "elsewhere"
    shutil.copytree(finished, alone)
    new = pl.read_csv(shop / "clicks.csv", infer_schema=False).drop("clicked", "bought", "spend")
    new.write_csv(shop / "new.csv")
    hidden = shop / "hidden.csv"
    (shop / "clicks.csv").rename(hidden)
    try:
        output = shop / "scores.parquet"
        answer(parse([f"run={alone}", f"data={shop / 'new.csv'}", f"output={output}", "keep=[user_id]"]), Console())
    finally:
        hidden.rename(shop / "clicks.csv")
    scores = pl.read_parquet(output)
    assert scores.columns == ["row", "user_id", "predicted_clicked"] and scores.height == 3000
    loaded = load_run(finished)
    trainer = CTRTrainer()
    expected: Any = trainer.predict(loaded.model, loaded.dataset, "all")
    np.testing.assert_allclose(scores["predicted_clicked"].to_numpy(), expected["clicked"], atol=1e-6)
    tested = pl.read_parquet(finished / "predictions.parquet")["predicted_clicked"].to_numpy()
    np.testing.assert_allclose(tested, expected["clicked"][-len(tested) :], atol=1e-6)


def test_unknown_ids_and_missing_values_are_no_trouble(finished: Path) -> None:
    row = {"user_id": "never seen", "item_id": None, "country": "zz", "price": None, "age": "33", "history": "1|x|"}
    found = Predictor.load(finished)(pl.DataFrame([row, row]))
    values = found["predicted_clicked"].to_list()
    assert found.columns == ["predicted_clicked"] and values[0] == values[1] and 0 < values[0] < 1
    assert Predictor.load(finished)(pl.DataFrame(schema=dict.fromkeys(row, pl.String))).height == 0


def test_several_tasks_and_their_conditionals_are_written(shop: Path) -> None:
    several = ["data.tasks=[clicked,bought]", "model=esmm", "trainer=mtl", "trainer.balancing=uwl", "baselines=null"]
    outcome = run(shop, "esmm", *several)
    assert {"test/bought/auc", "test/clicked/auc", "test/auc", "test/bought_given_clicked/log_loss"} <= set(
        outcome.final
    )
    output = shop / "several.csv"
    answer(parse([f"run={outcome.folder}", f"data={shop / 'clicks.csv'}", f"output={output}"]), Console())
    found = pl.read_csv(output)
    assert found.columns == ["row", "predicted_clicked", "predicted_bought", "predicted_bought_given_clicked"]
    product = found["predicted_clicked"] * found["predicted_bought_given_clicked"]
    np.testing.assert_allclose(found["predicted_bought"], product, atol=1e-6)


def test_numbers_rerun(shop: Path) -> None:
    options = [
        "model=mmoe",
        "trainer=mtl",
        "trainer.balancing=gradnorm",
        "data.tasks=[clicked,spend]",
        "baselines=null",
    ]
    whole = run(shop, "whole", *options, "trainer.max_epochs=3")
    other = run(shop, "other", *options, "trainer.max_epochs=3", "seed=7")
    assert whole.final != other.final
    again = run(shop, "again", *options, "trainer.max_epochs=3")
    assert again.final == whole.final and again.history == whole.history


def test_baselines_stand_beside_a_model_of_rows(shop: Path) -> None:
    final = run(shop, "fm", "model=fm", "trainer=ctr", "baselines.gradient_boosting.max_iter=5").final
    assert final["baseline/base_rate/test/auc"] == 0.5
    assert 0.5 < final["baseline/gradient_boosting/test/auc"] < 1
    assert not any("popularity" in name for name in final)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=a.csv"], "Say output=FILE"),
        (["data=a.csv", "output=b.txt"], "must end in"),
        (["dta=a.csv"], r"Did you mean data=\?"),
        (["data=a.csv", "output=b.csv", "keep=user"], "between brackets"),
        (["data=a.csv", "output=b.csv", "batch_size=0"], "whole number of 1 or more"),
        (["data=a.csv", "output=b.csv", "checkpoint=last"], "best and final"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        parse(arguments)


def test_what_cannot_be_predicted_is_said(
    shop: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attempt(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["genrec-predict", *words, f"output={tmp_path / 'out.csv'}"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2 and not (tmp_path / "out.csv").exists()
        return capsys.readouterr().err

    pl.DataFrame({"user_id": ["1"]}).write_csv(tmp_path / "narrow.csv")
    assert "no such file" in attempt(f"run={finished}", f"data={tmp_path / 'nowhere.csv'}")
    assert "has no column 'price'" in attempt(f"run={finished}", f"data={tmp_path / 'narrow.csv'}")
    assert "has no column colour" in attempt(f"run={finished}", f"data={tmp_path / 'narrow.csv'}", "keep=[colour]")
    assert "no finished run" in attempt("run=latest", f"runs_dir={tmp_path}", f"data={tmp_path / 'narrow.csv'}")
    clicks = pl.read_csv(shop / "clicks.csv", infer_schema=False).head(5)
    clicks.with_columns(pl.lit("1").alias("row"), pl.lit([1]).alias("tags")).write_parquet(tmp_path / "odd.parquet")
    assert "a column of the predictions is called row too" in attempt(
        f"run={finished}", f"data={tmp_path / 'odd.parquet'}", "keep=[row]"
    )
    assert "tags holds lists, which CSV cannot" in attempt(
        f"run={finished}", f"data={tmp_path / 'odd.parquet'}", "keep=[tags]"
    )
    shutil.copytree(finished, tmp_path / "no_weights", ignore=shutil.ignore_patterns("*.pt"))
    assert "best_model.pt does not exist" in attempt(f"run={tmp_path / 'no_weights'}", f"data={shop / 'clicks.csv'}")


def test_the_rows_are_never_overwritten(shop: Path, finished: Path) -> None:
    rows = (shop / "clicks.csv").read_bytes()
    with pytest.raises(GenrecError, match="is the file of the rows themselves"):
        answer(parse([f"run={finished}", f"data={shop / 'clicks.csv'}", f"output={shop / 'mine/../clicks.csv'}"]))
    assert (shop / "clicks.csv").read_bytes() == rows


def test_a_baseline_is_fitted_to_the_training_rows_again(shop: Path, tmp_path: Path) -> None:
    options = ["model=gradient_boosting", "trainer=ctr", "trainer.export_predictions=true", "baselines=null"]
    outcome = run(shop, "trees", *options, "model.max_iter=5")
    answer(parse([f"run={outcome.folder}", f"data={shop / 'clicks.csv'}", f"output={tmp_path / 'o.parquet'}"]))
    found = pl.read_parquet(tmp_path / "o.parquet")["predicted_clicked"].to_numpy()
    tested = pl.read_parquet(outcome.folder / "predictions.parquet")["predicted_clicked"].to_numpy()
    np.testing.assert_allclose(found[-len(tested) :], tested, atol=1e-6)


def test_labels_of_new_rows_are_not_looked_at_and_unknown_ids_are_told(shop: Path, finished: Path) -> None:
    new = pl.read_csv(shop / "clicks.csv", infer_schema=False).head(10)
    new.with_columns(pl.lit("?").alias("clicked"), pl.lit("zz").alias("item_id")).write_csv(shop / "odd.csv")
    console = Console(record=True, width=200)
    answer(parse([f"run={finished}", f"data={shop / 'odd.csv'}", f"output={shop / 'odd_scores.csv'}"]), console)
    assert "ids unknown to training, or missing: item_id 100.0 %" in console.export_text()
    assert pl.read_csv(shop / "odd_scores.csv").height == 10


def test_a_table_without_rows_gives_one_without_rows(shop: Path, finished: Path) -> None:
    pl.read_csv(shop / "clicks.csv", infer_schema=False).head(0).write_parquet(shop / "none.parquet")
    answer(parse([f"run={finished}", f"data={shop / 'none.parquet'}", f"output={shop / 'none_scores.parquet'}"]))
    found = pl.read_parquet(shop / "none_scores.parquet")
    assert found.columns == ["row", "predicted_clicked"] and not found.height


def test_renamed_columns_are_renamed_again_as_far_as_they_are_needed(shop: Path, tmp_path: Path) -> None:
    names = "data.source.columns={was_clicked: clicked, user: user_id, day: time, cost: price}"
    rows = ["data=table", "split=random_rows", f"data.path={shop / 'clicks.csv'}", names, "data.labels=was_clicked"]
    options = ["data.features={user: sparse, cost: dense}", "data.infer=false", "model=fm", "trainer=ctr"]
    outcome = run(shop, "renamed", *rows, *options, "baselines=null")
    new = pl.read_csv(shop / "clicks.csv", infer_schema=False).select("user_id", "price", "item_id").head(7)
    new.write_csv(tmp_path / "new.csv")
    output = tmp_path / "o.csv"
    answer(parse([f"run={outcome.folder}", f"data={tmp_path / 'new.csv'}", f"output={output}", "keep=[user,item_id]"]))
    found = pl.read_csv(output, infer_schema=False)
    assert found.columns == ["row", "user", "item_id", "predicted_was_clicked"]
    assert found["user"].to_list() == new["user_id"].to_list()
