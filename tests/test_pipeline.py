"""Whole runs on tiny data: what they write, that they repeat, and that they can be brought back to life."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import genrec
from genrec.artifacts import read_json
from genrec.config import compose_config, instantiate
from genrec.contracts import IGNORE, TEST, GenrecError
from genrec.pipeline import Outcome, execute, load_run
from genrec.records import read_run
from genrec.run import run
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.streaming import ResidualCodec
from genrec.trainers.evaluation import beyond_accuracy, evaluate_retrieval

COMMON = ["progress=false", "logger=none", "hardware=cpu", "hardware.num_threads=1"]
SYNTHETIC = ["data.source.num_users=120", "data.source.num_items=60"]
TIGER = ["experiment=quick", "trainer=tiger", "trainer.max_epochs=2"]
RQVAE = ["model=rqvae", "trainer=rqvae", "trainer.max_epochs=3", "model.hidden_dims=[16]", "model.latent_dim=8"]


@dataclass(frozen=True)
class Workshop:
    """A place where runs are made; they share a cache unless told otherwise."""

    root: Path

    def config(self, name: str, *overrides: str) -> DictConfig:
        places = [f"runs_dir={self.root}", f"cache_dir={self.root / 'cache'}"]
        return compose_config([*places, *COMMON, *overrides], output_dir=self.root / name)

    def run(self, name: str, *overrides: str) -> Outcome:
        return execute(self.config(name, *overrides))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> Outcome:
    """A TIGER on synthetic data, two epochs."""
    return workshop.run("finished", *TIGER, *SYNTHETIC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 40 users who walk around a ring of 12 items: no timestamps out of order, no text."""
    path = tmp_path_factory.mktemp("shop") / "walks.csv"
    rows = [f"u{user},item-{(user + step) % 12:02d},{step}" for user in range(40) for step in range(7)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder_run(workshop: Workshop, shop: Path) -> Outcome:
    """A TIGER on the CSV, named by a path relative to the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shop.parent)
        overrides = ["data=folder", f"data.path={shop.name}", "encoder=collaborative", "encoder.dim=8"]
        return workshop.run("folder", *TIGER, *overrides)


def measured(folder: Path, *, filter_seen: bool = False, checkpoint: str = "best") -> dict[str, float]:
    """Test metrics measured afresh with the model of a finished run."""
    loaded = load_run(folder, checkpoint)
    k_values = [5, 10, 20]
    return evaluate_retrieval(
        loaded.model,
        loaded.dataset.sequences,
        TEST,
        k_values=k_values,
        filter_seen=filter_seen,
        batch_size=256,
        progress=False,
        beyond=beyond_accuracy(loaded.dataset.sequences, k_values),
    )


def with_prefix(final: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in final.items() if name.startswith(prefix)}


def of_test(final: dict[str, float]) -> dict[str, float]:
    """Test metrics of lists that every retrieval model has, with item vectors or without."""
    special = ("test/perplexity", "test/diversity@")
    return {name: value for name, value in final.items() if name.startswith("test/") and not name.startswith(special)}


# -- metrics.json


def test_metrics_hold_final_and_history(finished: Outcome) -> None:
    metrics = read_json(finished.folder / "metrics.json")
    assert metrics == {"final": finished.final, "history": finished.history}
    wanted = {
        "train/loss",
        "val/loss",
        "val/recall@10",
        "test/recall@5",
        "test/recall@10",
        "test/ndcg@10",
        "baseline/popularity/test/recall@10",
        "baseline/item_knn/test/recall@10",
        "baseline/item_knn/val/recall@10",
        "baseline/text_knn/test/ndcg@20",
        "test/coverage@10",
        "test/diversity@10",
        "baseline/popularity/test/popularity_lift@10",
        "ceiling/test/recall@10",
        "tokenizer/unique_share",
    }
    assert wanted - set(finished.final) == set()
    assert all(isinstance(value, float) and math.isfinite(value) for value in finished.final.values())
    for name in ("train/loss", "val/loss", "val/recall@10", "val/ndcg@5"):
        assert len(finished.history[name]) == 2, name
    assert not any(name.startswith("test/") for name in finished.history)


def test_ranking_metrics_lie_between_nothing_and_the_ceiling(finished: Outcome) -> None:
    unbounded = ("novelty", "arp", "popularity_lift")
    shares = {
        name: value
        for name, value in finished.final.items()
        if name.endswith("_share") or ("@" in name and not name.rpartition("/")[2].startswith(unbounded))
    }
    assert len(shares) > 100
    assert [name for name, value in shares.items() if not 0.0 <= value <= 1.0] == []
    final = finished.final
    assert final["baseline/popularity/test/recall@10"] < final["baseline/item_knn/test/recall@10"]
    assert final["baseline/item_knn/test/recall@10"] < final["ceiling/test/recall@10"] + 0.1  # noise of 120 users
    assert final["test/recall@5"] <= final["test/recall@10"] <= final["test/recall@20"]
    assert final["test/recall@20"] > 0.0


def test_validation_metrics_are_those_of_the_best_epoch_and_monitored(finished: Outcome) -> None:
    best = max(finished.history["val/recall@10"])
    assert finished.monitor == "val/recall@10"
    assert finished.monitored == finished.final["val/recall@10"] == best


# -- the run folder


def test_run_folder_is_complete_and_nothing_temporary_is_left(finished: Outcome) -> None:
    files = {path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()}
    assert files == {
        ".lock",
        "checkpoints/best_model.pt",
        "checkpoints/final_model.pt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "environment.json",
        "history.json",
        "metrics.json",
        "overrides.yaml",
        "report.html",
        "resources.json",
        "run.json",
        "run.log",
        "samples.json",
        "semantic_ids.npz",
        "test_users.parquet",
        "timing.json",
        "tokenizer_report.json",
    }
    told = read_json(finished.folder / "run.json")
    assert told["state"] == "finished"
    curve = [row["val/recall@10"] for row in read_json(finished.folder / "history.json")]
    assert told["best_epoch"] == curve.index(max(curve)) + 1
    assert SemanticIds.load(finished.folder / "semantic_ids.npz").num_items == 60
    report = with_prefix(finished.final, "tokenizer/")
    assert read_json(finished.folder / "tokenizer_report.json") == report != {}
    timing = read_json(finished.folder / "timing.json")
    stages = {"data", "encoder", "tokenizer", "model", "fit", "test", "baselines", "report"}
    assert {*stages, "total"} == set(timing)
    assert timing["total"] >= timing["fit"] > 0
    run = read_run(finished.folder)
    assert set(run.stages) == stages
    highest = max(costs["peak_resident_bytes"] for costs in run.stages.values())
    assert run.resources["peak_resident_bytes"] >= highest > 1e8


def test_what_the_test_saw_of_each_user_means_what_is_reported(finished: Outcome) -> None:
    users = read_run(finished.folder).users()
    assert users is not None and len(users) == 120
    for column in ("recall@10", "ndcg@5", "hit@20"):
        assert users[column].mean() == pytest.approx(finished.final[f"test/{column}"], abs=1e-6)
        for baseline in ("popularity", "item_knn", "text_knn"):
            expected = finished.final[f"baseline/{baseline}/test/{column}"]
            assert users[f"baseline/{baseline}/{column}"].mean() == pytest.approx(expected, abs=1e-6)


def test_history_has_a_row_per_epoch_with_its_time(finished: Outcome) -> None:
    rows = read_run(finished.folder).epochs
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["val/recall@10"] for row in rows] == finished.history["val/recall@10"]
    assert all(row["seconds"] > 0 and row["train/lr"] > 0 for row in rows)


def test_record_says_what_ran_and_what_it_needed(finished: Outcome) -> None:
    run = read_run(finished.folder)
    assert (run.state, run.model, run.data) == ("finished", "tiger", "synthetic")
    assert (run.monitor, run.direction) == ("val/recall@10", "max")
    assert run.resources["parameters"] > 1000 and run.resources["peak_resident_bytes"] > 1e8


def test_hopeless_run_is_pruned_untested_and_its_epochs_are_kept(workshop: Workshop) -> None:
    told: list[tuple[int, float]] = []

    def watch(epoch: int, value: float) -> bool:
        told.append((epoch, value))
        return epoch == 2

    outcome = execute(workshop.config("pruned", *TIGER, *SYNTHETIC, "trainer.max_epochs=4"), watch=watch)
    run = read_run(outcome.folder)
    assert (outcome.state, run.state) == ("pruned", "pruned")
    assert [epoch for epoch, _ in told] == [row["epoch"] for row in run.epochs] == [1, 2]
    assert [value for _, value in told] == outcome.history["val/recall@10"]
    assert outcome.monitored == run.final["val/recall@10"] == max(outcome.history["val/recall@10"])
    assert not any(name.startswith("test/") for name in run.final)


def test_run_that_nobody_prunes_is_the_same_watched_or_not(workshop: Workshop, finished: Outcome) -> None:
    watched = execute(workshop.config("watched", *TIGER, *SYNTHETIC), watch=lambda epoch, value: False)
    assert watched.final == finished.final


def test_cache_holds_no_temporary_files(finished: Outcome, workshop: Workshop) -> None:
    files = [path for path in (workshop.root / "cache").rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert [path for path in files if path.name.startswith(".")] == []


def test_environment_says_what_is_needed_to_repeat_the_run(finished: Outcome) -> None:
    environment = read_json(finished.folder / "environment.json")
    assert environment["seed"] == 42
    assert environment["versions"]["genrec"] == genrec.__version__
    assert environment["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "pytorch-lightning"} <= set(environment["versions"])
    loaded = load_run(finished.folder)
    assert environment["data_fingerprint"] == loaded.dataset.fingerprint
    ids = SemanticIds.load(finished.folder / "semantic_ids.npz")
    assert environment["semantic_ids_fingerprint"] == ids.fingerprint
    assert environment["config_key"] == read_json(finished.folder / "run.json")["config_key"]
    assert {"command", "git", "host"} <= set(environment)


def test_written_config_is_resolved(finished: Outcome) -> None:
    text = (finished.folder / "config.yaml").read_text()
    assert "${" not in text and "???" not in text
    config = OmegaConf.load(finished.folder / "config.yaml")
    assert isinstance(config, DictConfig)
    assert (config.output_dir, config.trainer.max_epochs) == (str(finished.folder), 2)


# -- a run repeats


def test_same_config_gives_the_same_bytes_with_and_without_the_cache(finished: Outcome, workshop: Workshop) -> None:
    np.random.seed(torch.randint(99, (1,)).item())  # whatever was drawn before has no influence
    fresh = replace(workshop, root=workshop.root / "fresh").run("again", *TIGER, *SYNTHETIC)
    cached = workshop.run("cached", *TIGER, *SYNTHETIC)
    wanted = (finished.folder / "metrics.json").read_bytes()
    assert (fresh.folder / "metrics.json").read_bytes() == wanted
    assert (cached.folder / "metrics.json").read_bytes() == wanted


def test_a_tokenizer_trained_just_now_leaves_no_trace_in_the_model(workshop: Workshop) -> None:
    """Fault: training the tokenizer draws random numbers, so weights differed from those after a cached one."""
    overrides = [*TIGER, *SYNTHETIC, "trainer.max_epochs=1", "baselines=null", "tokenizer=rqvae", "encoder.dim=16"]
    small = ["tokenizer.trainer.max_epochs=2", "tokenizer.model.hidden_dims=[16]", "tokenizer.model.latent_dim=8"]
    texts = [workshop.run(name, *overrides, *small).folder / "metrics.json" for name in ("trained", "from_cache")]
    assert texts[0].read_bytes() == texts[1].read_bytes()


def test_another_seed_gives_another_run(finished: Outcome, workshop: Workshop) -> None:
    other = workshop.run("seed", *TIGER, *SYNTHETIC, "seed=7", "trainer.max_epochs=1", "baselines=null")
    assert other.history["train/loss"][0] != finished.history["train/loss"][0]
    assert with_prefix(other.final, "baseline/") == {}
    assert with_prefix(other.final, "ceiling/") == with_prefix(finished.final, "ceiling/")  # the data is the same


def test_root_monitor_reaches_the_trainer_and_is_returned(workshop: Workshop) -> None:
    config = workshop.config("monitor", *TIGER, *SYNTHETIC, "monitor=val/ndcg@10", "trainer.patience=1")
    value = run(config)
    folder = workshop.root / "monitor"
    metrics = read_json(folder / "metrics.json")
    assert value == metrics["final"]["val/ndcg@10"] == max(metrics["history"]["val/ndcg@10"])
    written = OmegaConf.load(folder / "config.yaml")
    assert isinstance(written, DictConfig)
    assert written.trainer.monitor == "val/ndcg@10"
    assert config.trainer.monitor == "val/recall@10"  # the caller's config stays as it was


def test_a_folder_in_use_is_refused(finished: Outcome, workshop: Workshop) -> None:
    from genrec.run_folder import RunFolder

    before = (finished.folder / "metrics.json").read_bytes()
    key = read_json(finished.folder / "run.json")["config_key"]
    with RunFolder(finished.folder, key).held(resumed=True), pytest.raises(GenrecError, match="Another process"):
        workshop.run("finished", *TIGER, *SYNTHETIC)
    assert (finished.folder / "metrics.json").read_bytes() == before


def test_a_new_run_in_an_old_folder_keeps_no_curves_of_the_old_one(workshop: Workshop) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 1):
        overrides = [*TIGER, *SYNTHETIC, "logger=tensorboard", "baselines=null", f"trainer.max_epochs={epochs}"]
        outcome = workshop.run("twice", *overrides)
    events = EventAccumulator(str(outcome.folder / "tensorboard"), purge_orphaned_data=False).Reload()
    assert len(events.Scalars("train/loss")) == 1
    assert len((outcome.folder / "run.log").read_text().split("results\n")) == 2


# -- a finished run is brought back to life


def test_loaded_model_has_the_recorded_test_metrics(finished: Outcome) -> None:
    assert measured(finished.folder) == pytest.approx(of_test(finished.final), abs=1e-12)


def test_both_checkpoints_can_be_loaded(finished: Outcome) -> None:
    for name in ("best", "final"):
        loaded = load_run(finished.folder, name)
        saved = torch.load(finished.folder / "checkpoints" / f"{name}_model.pt", weights_only=True)
        state = loaded.model.state_dict()
        assert not loaded.model.training
        assert state.keys() == saved.keys()
        assert all(torch.equal(state[key], saved[key]) for key in saved)


def test_loading_needs_neither_cache_nor_encoder(finished: Outcome, workshop: Workshop, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    config = OmegaConf.load(copy / "config.yaml")
    assert isinstance(config, DictConfig)
    config.cache_dir = str(tmp_path / "cache")
    OmegaConf.save(config, copy / "config.yaml")
    assert load_run(copy).spec.num_items == 60
    assert not (tmp_path / "cache").exists()


def test_unfinished_and_foreign_folders_are_refused(finished: Outcome, tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="not a run folder"):
        load_run(tmp_path)
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    (copy / "checkpoints" / "best_model.pt").unlink()
    with pytest.raises(GenrecError, match="has not finished"):
        load_run(copy)


# -- a CSV of one's own


def test_own_csv_from_end_to_end(folder_run: Outcome, shop: Path) -> None:
    loaded = load_run(folder_run.folder)  # from another working directory than the run's
    assert loaded.config.data.path == str(shop)
    assert (loaded.dataset.num_users, loaded.dataset.num_items) == (40, 12)
    assert loaded.dataset.log.item_ids[0] == "item-00"
    assert measured(folder_run.folder) == pytest.approx(of_test(folder_run.final), abs=1e-12)
    assert folder_run.final["baseline/item_knn/test/recall@5"] == 1.0  # around a ring the next item is certain
    assert with_prefix(folder_run.final, "ceiling/") == {}  # nobody knows it here


def test_changed_data_is_refused(folder_run: Outcome, shop: Path) -> None:
    text = shop.read_text()
    shop.write_text(text.replace("u7,item-08,1", "u7,item-03,1"))
    try:
        with pytest.raises(GenrecError, match="data has changed"):
            load_run(folder_run.folder)
    finally:
        shop.write_text(text)
    load_run(folder_run.folder)


def test_baselines_that_need_text_are_left_out_with_a_reason(
    workshop: Workshop, shop: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="genrec")
    outcome = workshop.run("no_text", "model=item_knn", "data=folder", f"data.path={shop}")
    assert {name.split("/")[1] for name in with_prefix(outcome.final, "baseline")} == {"popularity"}
    reasons = [line for line in caplog.messages if line.startswith("baseline text_knn left out")]
    assert len(reasons) == 1 and "no item text" in reasons[0]
    assert not (outcome.folder / "semantic_ids.npz").exists()


def test_a_baseline_may_be_switched_off(workshop: Workshop) -> None:
    outcome = workshop.run("fewer", "model=item_knn", *SYNTHETIC, "baselines.text_knn=null")
    assert {name.split("/")[1] for name in with_prefix(outcome.final, "baseline")} == {"popularity"}


def test_text_encoder_without_text_names_what_to_do(workshop: Workshop, shop: Path) -> None:
    with pytest.raises(GenrecError, match=r"item text.*encoder=collaborative"):
        workshop.run("tfidf", *TIGER, "data=folder", f"data.path={shop}")
    assert read_json(workshop.root / "tfidf" / "run.json")["state"] == "failed"
    assert not (workshop.root / "tfidf" / "metrics.json").exists()


# -- other models


def test_rqvae_run_writes_semantic_ids_that_a_tiger_accepts(workshop: Workshop) -> None:
    first = workshop.run("rqvae", *RQVAE, "model.num_embeddings=8", *SYNTHETIC)
    assert len(first.history["train/loss"]) == 3
    assert first.monitored == first.final["val/loss"]
    assert not any("recall" in name or name.startswith(("baseline/", "ceiling/")) for name in first.final)
    path = first.folder / "semantic_ids.npz"
    ids = SemanticIds.load(path)
    assert (ids.num_items, ids.codebook_sizes[:3]) == (60, (8, 8, 8))
    model = load_run(first.folder).model
    vectors = load_run(first.folder).spec.item_vectors
    assert vectors is not None
    np.testing.assert_array_equal(model.encode(torch.from_numpy(vectors)).numpy(), ids.codes[:, :3])

    second = workshop.run(
        "from_file", *TIGER, *SYNTHETIC, "tokenizer=file", f"tokenizer.path={path}", "trainer.max_epochs=1"
    )
    assert SemanticIds.load(second.folder / "semantic_ids.npz").fingerprint == ids.fingerprint
    assert "test/recall@10" in second.final


def test_a_model_without_parameters_is_evaluated_only(finished: Outcome, workshop: Workshop) -> None:
    outcome = workshop.run("popularity", "model=popularity", *SYNTHETIC)
    assert outcome.history == {}
    assert of_test(outcome.final) == of_test(with_prefix(finished.final, "baseline/popularity/"))
    assert {name.split("/")[1] for name in with_prefix(outcome.final, "baseline")} == {"item_knn", "text_knn"}
    assert outcome.final["ceiling/test/recall@10"] == finished.final["ceiling/test/recall@10"]
    assert not (outcome.folder / "checkpoints").exists()
    assert measured(outcome.folder) == of_test(outcome.final)


def test_a_model_without_parameters_returns_the_monitored_number(finished: Outcome, workshop: Workshop) -> None:
    outcome = workshop.run("item_knn", "model=item_knn", *SYNTHETIC)
    assert outcome.monitored == finished.final["baseline/item_knn/val/recall@10"]


# -- one protocol for all


def test_filter_seen_reaches_model_and_baselines_alike(finished: Outcome, workshop: Workshop) -> None:
    filtered = workshop.run("filtered", *TIGER, *SYNTHETIC, "filter_seen=true", "trainer.max_epochs=1")
    alone = workshop.run("filtered_knn", "model=item_knn", *SYNTHETIC, "filter_seen=true")
    baseline = of_test(with_prefix(filtered.final, "baseline/item_knn/"))
    assert baseline == of_test(alone.final)
    assert baseline != of_test(with_prefix(finished.final, "baseline/item_knn/"))
    assert measured(filtered.folder, filter_seen=True) == pytest.approx(of_test(filtered.final), abs=1e-12)
    assert measured(filtered.folder, filter_seen=False) != pytest.approx(of_test(filtered.final), abs=1e-12)


def test_filtered_recommendations_hold_nothing_of_the_history(finished: Outcome) -> None:
    loaded = load_run(finished.folder)
    for filter_seen in (True, False):
        repeats = 0
        for batch, _ in loaded.dataset.sequences.eval_batches(
            TEST, batch_size=64, max_history=loaded.model.max_history, filter_seen=filter_seen
        ):
            with torch.inference_mode():
                found = loaded.model.recommend(batch, 20).items
            history = batch.items.masked_fill(
                torch.arange(batch.items.shape[1])[None, :] >= batch.lengths[:, None], IGNORE - 1
            )
            repeats += int((found[:, :, None] == history[:, None, :]).sum())
        assert (repeats == 0) == filter_seen


def test_a_tokenizer_of_text_alone_leaves_a_codec_that_codes_further_items(workshop: Workshop) -> None:
    """The codec of the run folder gives the catalogue's own vectors the content codes they have."""
    outcome = workshop.run("codec", *TIGER, *SYNTHETIC, "tokenizer.collaborative_dim=0", "trainer.max_epochs=1")
    codec = ResidualCodec.load(outcome.folder / "codec.npz")
    loaded = load_run(outcome.folder)
    vectors = instantiate(loaded.config.encoder, _convert_="all").encode(loaded.dataset)
    ids = SemanticIds.load(outcome.folder / "semantic_ids.npz")
    assert (codec(vectors) == ids.codes[:, : ids.num_content_levels]).all()
