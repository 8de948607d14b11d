from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.artifacts import write_json
from genrec.contracts import GenrecError
from genrec.report.sides import ABSENT, changed_settings, costs, differing, flattened, read_sides
from tests.report.run_folders import make_run, make_sweep
from tests.report.tested_runs import SPLIT, hits, make_row_run, make_user_run

RECALL = hits(20, 0.4, 0)


def seeds_of(folder: Path, *, settings: tuple[float, ...] = (0.1,), state: str = "finished") -> Path:
    """A sweep over two seeds for each learning rate."""
    make_sweep(folder)
    jobs = [(lr, seed) for lr in settings for seed in (1, 2)]
    for job, (lr, seed) in enumerate(jobs):
        make_user_run(folder / str(job), RECALL, seed=seed, config={"optimizer": {"lr": lr}}, seconds=10.0 + job,
                      overrides=[f"optimizer.lr={lr}", f"seed={seed}"], state="finished" if job else state)  # fmt: skip
    return folder


class TestReadSides:
    def test_runs_seeds_and_baselines(self, tmp_path: Path) -> None:
        a = make_user_run(tmp_path / "a", RECALL, baselines={"item_knn": RECALL})
        sweep = seeds_of(tmp_path / "s")
        knn, run, seeds = read_sides([f"{a}:item_knn", str(a), str(sweep)])
        assert (knn.name, knn.baseline, knn.is_trained) == ("item_knn", "item_knn", False)
        assert (len(run.runs), run.seeds) == (1, [42])
        assert (len(seeds.runs), seeds.seeds, seeds.settings["seed"]) == (2, [1, 2], "1, 2")

    def test_folders_below_runs_dir_and_latest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        make_user_run(tmp_path / "runs" / "a", RECALL, started=1.0)
        make_user_run(tmp_path / "runs" / "b", RECALL, started=2.0)
        found = read_sides(["a", "latest"], Path("runs"))
        assert [side.run.folder for side in found] == [Path("runs/a"), Path("runs/b")]

    def test_names_say_what_was_changed(self, tmp_path: Path) -> None:
        a, b = (
            make_user_run(tmp_path / str(lr), RECALL, config={"optimizer": {"lr": lr}, "logger": {"x": lr}},
                          overrides=[f"optimizer.lr={lr}", f"logger={lr}"])
            for lr in (0.1, 0.2)
        )  # fmt: skip
        assert [side.name for side in read_sides([str(a), str(b)])] == ["tiger lr=0.1", "tiger lr=0.2"]

    def test_callbacks_are_settings_unless_they_only_watch(self, tmp_path: Path) -> None:
        nodes = {
            "weight_average": {"_target_": "genrec.trainers.callbacks.weight_average.WeightAverage", "decay": 0.9},
            "profiler": {"_target_": "genrec.trainers.callbacks.profiler.ProfilerWindow", "rows": 3},
        }
        paths = [
            make_user_run(tmp_path / name, RECALL, config={"callbacks": {name: node}}) for name, node in nodes.items()
        ]
        average, profiler = read_sides([str(path) for path in paths])
        assert average.settings["callbacks.weight_average.decay"] == 0.9
        assert not any(name.startswith("callbacks") for name in profiler.settings)

    def test_names_are_never_the_same(self, tmp_path: Path) -> None:
        a, b = (make_user_run(tmp_path / name, RECALL) for name in ("a", "b"))
        assert [side.name for side in read_sides([str(a), str(b)])] == ["tiger a", "tiger b"]
        assert len({side.name for side in read_sides([str(a), str(a)])}) == 2

    def test_some_runs_of_a_sweep(self, tmp_path: Path) -> None:
        sweep = seeds_of(tmp_path / "s", settings=(0.1, 0.2))
        sides = read_sides([f"{sweep}:optimizer.lr=0.1", f"{sweep}:optimizer.lr=0.2"])
        assert [[run.folder.name for run in side.runs] for side in sides] == [["0", "1"], ["2", "3"]]

    def test_runs_that_did_not_finish_are_counted(self, tmp_path: Path) -> None:
        side, _ = read_sides(
            [str(seeds_of(tmp_path / "s", state="failed")), str(make_user_run(tmp_path / "a", RECALL))]
        )
        assert (len(side.runs), side.left_out) == (1, 1)


class TestRefusals:
    @pytest.fixture
    def a(self, tmp_path: Path) -> str:
        return str(make_user_run(tmp_path / "a", RECALL))

    def test_no_run(self, a: str, tmp_path: Path) -> None:
        with pytest.raises(GenrecError, match=r"neither a run folder nor that of a sweep.*report ls"):
            read_sides([a, str(tmp_path / "nothing")])

    @pytest.mark.parametrize(("state", "advice"), [("failed", "run.log"), ("running", "resume=auto")])
    def test_not_finished(self, a: str, tmp_path: Path, state: str, advice: str) -> None:
        b = make_user_run(tmp_path / "b", RECALL, state=state)  # nobody holds the one that says it runs: it was killed
        with pytest.raises(GenrecError, match=f"b has not finished.*{advice}"):
            read_sides([a, str(b)])

    def test_nothing_per_user(self, a: str, tmp_path: Path) -> None:
        with pytest.raises(GenrecError, match=r"b holds no results per user or row.*Run it again"):
            read_sides([a, str(make_run(tmp_path / "b"))])

    def test_other_data(self, a: str, tmp_path: Path) -> None:
        b = make_user_run(tmp_path / "b", RECALL, fingerprint="d2", data="lastfm")
        with pytest.raises(GenrecError, match=r"different data.*synthetic and lastfm.*d1 and d2.*same data="):
            read_sides([a, str(b)])

    def test_data_of_the_same_name_that_changed(self, a: str, tmp_path: Path) -> None:
        b = make_user_run(tmp_path / "b", RECALL, fingerprint="d2")
        with pytest.raises(GenrecError, match="synthetic, of different content"):
            read_sides([a, str(b)])

    def test_another_split(self, a: str, tmp_path: Path) -> None:
        b = make_user_run(tmp_path / "b", RECALL, config={"split": {**SPLIT, "val_from": 0.8}})
        with pytest.raises(GenrecError, match=r"split.val_from is - and 0.8"):
            read_sides([a, str(b)])

    def test_another_protocol(self, a: str, tmp_path: Path) -> None:
        b = make_user_run(tmp_path / "b", RECALL, config={"filter_seen": True})
        with pytest.raises(GenrecError, match="filter_seen is False and True"):
            read_sides([a, str(b)])

    def test_users_against_rows(self, a: str, tmp_path: Path) -> None:
        b = make_row_run(tmp_path / "b", {"click": RECALL}, {"click": np.full(20, 0.5)})
        with pytest.raises(GenrecError, match=r"a recommends items, .*b predicts labels"):
            read_sides([a, str(b)])

    def test_a_sweep_over_more_than_seeds(self, a: str, tmp_path: Path) -> None:
        sweep = seeds_of(tmp_path / "s", settings=(0.1, 0.2))
        with pytest.raises(GenrecError, match=r"differ in optimizer\.lr.*Choose with .*s:optimizer\.lr=0\.1"):
            read_sides([a, str(sweep)])
        with pytest.raises(GenrecError, match=r"No run of .*s has optimizer.lr=7"):
            read_sides([a, f"{sweep}:optimizer.lr=7"])


def test_flattened_and_differing() -> None:
    first = dict(flattened({"a": {"b": 1, "c": [1, 2]}, "d": None}))
    assert first == {"a.b": 1, "a.c": [1, 2], "d": None}
    assert differing([first, {"a.b": 1, "a.c": [1], "e": 2}]) == {
        "a.c": [[1, 2], [1]],
        "d": [None, ABSENT],
        "e": [ABSENT, 2],
    }


def test_settings_leave_out_what_computes_nothing(tmp_path: Path) -> None:
    a, b = (
        make_user_run(tmp_path / str(lr), RECALL, config={"optimizer": {"lr": lr}, "output_dir": str(lr), "logger": {}})
        for lr in (0.1, 0.2)
    )
    assert changed_settings(read_sides([str(a), str(b)])) == {"optimizer.lr": [0.1, 0.2]}


def test_settings_beside_a_baseline_are_those_it_has(tmp_path: Path) -> None:
    a = make_user_run(tmp_path / "a", RECALL, config={"optimizer": {"lr": 1}}, baselines={"item_knn": RECALL})
    rows = changed_settings(read_sides([f"{a}:item_knn", str(a)]))
    assert rows == {"model._target_": ["genrec.models.item_knn.Y", "genrec.models.tiger.X"]}


def test_costs_are_means_over_seeds_and_unknown_of_baselines(tmp_path: Path) -> None:
    sweep = seeds_of(tmp_path / "s")
    a = make_user_run(tmp_path / "a", RECALL, baselines={"item_knn": RECALL}, seconds=3.0)
    write_json(a / "history.json", [{"epoch": 0}, {"epoch": 1}])
    found = costs(read_sides([str(sweep), str(a), f"{a}:item_knn"]))
    assert found["seconds to train"] == [10.5, 3.0, None]
    assert found["epochs"] == [None, 2, None]
    assert found["parameters"] == [1000, 1000, None]


def test_a_sweep_over_seeds_is_named_after_its_folder_not_after_its_first_run(tmp_path: Path) -> None:
    one = make_user_run(tmp_path / "once", hits(40, 0.5, 0), seed=1)
    for seed in (1, 2):
        make_user_run(tmp_path / "often" / str(seed), hits(40, 0.5, seed), seed=seed)
    assert [side.name for side in read_sides([str(one), str(tmp_path / "often")])] == ["tiger once", "tiger often"]
