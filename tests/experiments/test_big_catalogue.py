"""The study of a big catalogue: what is planted in its data, and how its results are kept and shown."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from experiments.big_catalogue import __main__ as command
from experiments.big_catalogue import measure, picture
from experiments.big_catalogue.catalogue import CATEGORY, GROUP, Catalogue
from genrec.artifacts import write_json
from genrec.data.storage import load_folder


def test_neighbours_in_time_belong_together_and_share_words(tmp_path: Path) -> None:
    Catalogue(num_items=4_100, num_users=300).write(tmp_path / "shop")
    log = load_folder(tmp_path / "shop").log
    assert (log.num_items, log.num_users, len(log)) == (4_100, 300, 3_000)
    walks = log.items.reshape(300, 10)
    same = (walks[:, 1:] // GROUP == walks[:, :-1] // GROUP).mean()
    onward = (walks[:, 1:] // GROUP == walks[:, :-1] // GROUP + 1).mean()
    assert 0.55 < same < 0.65 and 0.2 < onward < 0.35
    assert (walks // CATEGORY == walks[:, :1] // CATEGORY).all(), "a user stays in a category"
    assert log.item_table is not None
    texts = [set(text.split()) for text in log.item_table["text"][:40].to_list()]
    assert all(len(texts[0] & other) >= 3 for other in texts[:GROUP])
    assert np.mean([len(texts[0] & other) for other in texts[GROUP:]]) < 2.5


def test_a_seed_gives_the_same_catalogue(tmp_path: Path) -> None:
    prints = set()
    for name in ("one", "other"):
        Catalogue(num_items=500, num_users=50).write(tmp_path / name)
        prints.add(load_folder(tmp_path / name).log.fingerprint)
    assert len(prints) == 1


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where no run is really made: which were asked for."""
    asked: list[tuple[str, int]] = []

    def trained(run: measure.Run, data: Path, users: int, place: Path, threads: int) -> Path:
        num_items = int(data.name.rpartition("_")[2])
        asked.append((run.name, num_items))
        stages = {
            name: {"seconds": num_items * cost / 1e4, "peak_resident_bytes": 3e8 + num_items * 1000}
            for name, cost in (("data", 0.2), ("fit", 3.0))
        }
        folder = tmp_path / f"{run.name}_{num_items}"
        write_json(folder / "run.json", {"state": "finished"})
        write_json(folder / "timing.json", {"total": 7.5})
        write_json(folder / "resources.json", {"stages": stages, "stage_peaks": "own", "peak_resident_bytes": 9e8})
        return folder

    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.csv")
    monkeypatch.setattr(measure.read_results, "__defaults__", (tmp_path / "results.csv",))
    monkeypatch.setattr(measure, "_data", lambda place, num_items, users: place / f"catalogue_{num_items}")
    monkeypatch.setattr(measure, "_trained", trained)
    monkeypatch.setattr(measure, "_decoded", lambda folder, threads: 0.25)
    return asked


def test_what_is_known_is_not_measured_again(results: list[tuple[str, int]], tmp_path: Path) -> None:
    measure.measure([1_000], tmp_path, threads=1, names=["tiger"])
    measure.measure([1_000, 10_000], tmp_path, threads=1, names=["tiger", "rpg"])
    assert results == [("tiger", 1_000), ("rpg", 1_000), ("tiger", 10_000), ("rpg", 10_000)]
    rows = measure.read_results()
    assert len(rows) == 4 * 4 and rows[0].keys() == set(measure.COLUMNS)
    fit = next(row for row in rows if (row["run"], row["items"], row["stage"]) == ("rpg", "10000", "fit"))
    assert (float(fit["seconds"]), float(fit["peak_bytes"])) == (3.0, 3.1e8)
    assert "| rpg | a batch of 256 | 250 ms | 250 ms |" in picture.table(rows)
    assert "| tiger | fit | 0.3 s, 287 MiB | 3.0 s, 296 MiB |" in picture.table(rows)


def test_the_picture_has_a_line_per_stage(results: list[tuple[str, int]], tmp_path: Path) -> None:
    measure.measure([1_000, 10_000], tmp_path, threads=1, names=["tiger"])
    root = ElementTree.fromstring(picture.draw(measure.read_results()))
    points = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(points) == 2 * (4 + 3), "two sizes each: seconds of three stages and a batch, memory of the three"
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"tiger: time", "tiger: peak memory", "10 k"} <= set(words)


def test_page_and_picture_are_those_of_the_results() -> None:
    rows = measure.read_results()
    text = (measure.FOLDER / "README.md").read_text(encoding="utf-8")
    assert rows and command.with_table(text) == text
    assert (measure.FOLDER / "plot.svg").read_text(encoding="utf-8") == picture.draw(rows)
    assert "](plot.svg)" in text and "**Question.**" in text
