from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.loggers.published import ItemMap, PublishedRun
from genrec.loggers.tensorboard import TensorBoard, _narrow

TIGER = {"model": {"_target_": "genrec.models.tiger.TIGER", "num_layers": 4}, "optimizer": {"lr": 1e-3}, "seed": 1}
GAT = {"model": {"_target_": "genrec.models.gat.GAT", "heads": 2, "text": True}, "optimizer": {"lr": 3e-4}, "seed": 2}


def finished(folder: Path, config: dict[str, Any], recall: float, items: ItemMap | None = None, **options: Any) -> Path:
    """A run of two epochs of which the first is the better."""
    logger = TensorBoard(save_dir=str(folder), **options)
    logger.log_hyperparams({**config, "environment": {"python": "3"}})
    for step, value in ((10, 2 * recall), (20, recall)):
        logger.log_metrics({"val/recall@10": value, "train/loss": 1.0}, step)
    logger.log_metrics({"test/recall@10": recall}, 20)
    final = {"val/recall@10": 2 * recall, "test/recall@10": recall, "baseline/popularity/test/recall@10": 0.1}
    logger.publish(PublishedRun(folder, final, config, items=lambda: items))
    logger.finalize("success")
    return folder / "tensorboard"


class Plugin:
    """The HParams tab's own back end over a folder of runs."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.context import RequestContext
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.backend_context import Context

        events = EventMultiplexer().AddRunsFromDirectory(str(folder))
        events.Reload()
        self.api: Any = api_pb2
        self.request = RequestContext()
        self.context = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))

    def experiment(self) -> Any:
        from tensorboard.plugins.hparams.get_experiment import Handler

        request = self.api.GetExperimentRequest(include_metrics=True)
        return Handler(self.request, self.context, "", request).run()

    def rows(self) -> list[Any]:
        from tensorboard.plugins.hparams.list_session_groups import Handler

        columns = [self.api.ColParams(metric=info.name) for info in self.experiment().metric_infos] + [
            self.api.ColParams(hparam=info.name) for info in self.experiment().hparam_infos
        ]
        request = self.api.ListSessionGroupsRequest(
            start_index=0, slice_size=10, col_params=columns, include_metrics=True,
            allowed_statuses=[self.api.STATUS_SUCCESS, self.api.STATUS_FAILURE, self.api.STATUS_RUNNING],
        )  # fmt: skip
        return list(Handler(self.request, self.context, "", request).run().session_groups)


def test_the_hparams_tab_shows_a_row_per_run_with_settings_and_results(tmp_path: Path) -> None:
    finished(tmp_path / "a", TIGER, 0.2)
    finished(tmp_path / "b", GAT, 0.3)
    plugin = Plugin(tmp_path)
    experiment = plugin.experiment()
    settings = {info.name for info in experiment.hparam_infos}
    assert settings == {"model", "model.num_layers", "model.heads", "model.text", "optimizer.lr", "seed"}
    assert {"final/val/recall@10", "test/recall@10"} <= {info.name.tag for info in experiment.metric_infos}
    found = {}
    for row in plugin.rows():
        (session,) = row.sessions
        values = {metric.name.tag: metric.value for metric in session.metric_values}
        found[row.hparams["model"].string_value] = (
            row.hparams["optimizer.lr"].number_value,
            pytest.approx(values["final/val/recall@10"]),
            pytest.approx(values["test/recall@10"]),
            session.status == plugin.api.STATUS_SUCCESS,
        )
    assert found == {"TIGER": (1e-3, 0.4, 0.2, True), "GAT": (3e-4, 0.6, 0.3, True)}


def test_a_failed_run_is_told_as_failed(tmp_path: Path) -> None:
    logger = TensorBoard(save_dir=str(tmp_path))
    logger.log_hyperparams(TIGER)
    logger.finalize("failed")
    plugin = Plugin(tmp_path)
    assert [session.status for row in plugin.rows() for session in row.sessions] == [plugin.api.STATUS_FAILURE]


def test_steps_of_a_resumed_run_never_go_backwards(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoard(save_dir=str(tmp_path))  # killed at step 30; its last checkpoint is from step 20
    first.log_hyperparams(TIGER)
    for step in (10, 20, 30):
        first.log_metrics({"train/loss": 1.0, "val/recall@10": 0.5}, step)
    first.save()
    time.sleep(1.1)  # files are read in the order of their seconds
    second = TensorBoard(save_dir=str(tmp_path))
    second.log_hyperparams(TIGER)
    second.rewind(20)
    for step in (25, 30, 40):
        second.log_metrics({"train/loss": 2.0}, step)
    second.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (10, 1.0), (20, 1.0), (25, 2.0), (30, 2.0), (40, 2.0)
    ]  # fmt: skip
    assert [event.step for event in events.Scalars("val/recall@10")] == [10, 20]


def items(count: int = 40, width: int = 3, **options: Any) -> ItemMap:
    vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    titles = [f"Title\tof\nitem {index}" for index in range(count)]
    codes = np.stack([np.arange(count) % 5, np.arange(count)], axis=1)
    return ItemMap(vectors, titles, [f"i{index}" for index in range(count)], **{"codes": codes, **options})


def projected(folder: Path) -> tuple[Path, list[dict[str, str]], np.ndarray]:
    """What the projector's own configuration leads to: the rows of metadata, and the points."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector import projector_config_pb2

    config: Any = projector_config_pb2.ProjectorConfig()  # pyright: ignore[reportAttributeAccessIssue]
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    with open(folder / embedding.metadata_path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return folder, rows, np.loadtxt(folder / embedding.tensor_path, delimiter="\t", ndmin=2)


def test_the_projector_finds_items_with_titles_and_first_codes(tmp_path: Path) -> None:
    shown = items()
    _, rows, points = projected(finished(tmp_path, TIGER, 0.2, shown))
    assert [row["title"] for row in rows] == [f"Title of item {index}" for index in range(40)]
    assert [int(row["first_code"]) for row in rows] == [index % 5 for index in range(40)]
    assert rows[7]["semantic_id"] == "2-7" and rows[7]["item_id"] == "i7"
    longest = np.linalg.norm(shown.vectors, axis=1).max()
    np.testing.assert_allclose(points, shown.vectors / longest, atol=1e-4)


def test_of_many_items_a_sample_is_shown_that_the_seed_decides(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        _, rows, points = projected(finished(tmp_path / name, TIGER, 0.2, items(), projector_items=10))
        assert len(rows) == len(points) == 10
        assert all(int(row["first_code"]) == int(row["item_id"][1:]) % 5 for row in rows)
        ids.append([row["item_id"] for row in rows])
    assert ids[0] == ids[1]


def test_items_without_semantic_ids_have_titles_only(tmp_path: Path) -> None:
    _, rows, _ = projected(finished(tmp_path, TIGER, 0.2, items(codes=None)))
    assert list(rows[0]) == ["title", "item_id"]


def test_no_projector_where_none_is_wanted_or_there_are_no_items(tmp_path: Path) -> None:
    for name, shown, options in (("a", items(), {"projector_items": 0}), ("b", None, {})):
        folder = finished(tmp_path / name, TIGER, 0.2, shown, **options)
        assert not (folder / "projector_config.pbtxt").exists()


def test_wide_vectors_keep_their_distances_along_the_principal_axes() -> None:
    generator = np.random.default_rng(1)
    hidden = generator.normal(size=(30, 5))  # 100 numbers each, which vary in 5 directions only
    wide = hidden @ np.linalg.qr(generator.normal(size=(100, 5)))[0].T + 3.0
    narrow = _narrow(wide)
    assert narrow.shape == (30, 64)
    original = np.linalg.norm(wide[:, None] - wide[None], axis=-1)
    shown = np.linalg.norm(narrow[:, None] - narrow[None], axis=-1)
    np.testing.assert_allclose(shown / shown.max(), original / original.max(), atol=1e-9)
