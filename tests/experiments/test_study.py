from __future__ import annotations

import pytest

from experiments import study
from experiments.page import by_hand
from experiments.plan import HERE, PLAN_FILE, read_study
from experiments.results import read_results
from tests.experiments.test_results import item_row

PAGE = """# Tiny

<!-- commands: begin -->
<!-- commands: end -->

<!-- table: begin -->
<!-- table: end -->

![Recall](plot.svg)
"""
PLAN = """
question: Does it work?
rows: items
seeds: [1, 2]
plot: {metric: recall@10}
runs:
  - {recipe: quick, name: plain, data: synthetic}
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A study whose trainings take no time; the list of those that were made."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / PLAN_FILE).write_text(PLAN)
    (folder / "README.md").write_text(PAGE)
    trained = []
    monkeypatch.setattr(study, "HERE", tmp_path)
    monkeypatch.setattr(study, "studies", lambda: ["tiny"])
    monkeypatch.setattr(study, "train", lambda cell, seed, *_, **__: trained.append((cell.name, seed)))
    monkeypatch.setattr(study, "rows_of", lambda cell, seed, *_, **__: [item_row(cell.name, seed, False, 0.1 * seed)])
    return folder, trained


def test_run_adds_rows_and_writes_the_page(tiny, capsys):
    folder, trained = tiny
    assert study.main(["tiny", "run"]) == 0
    assert trained == [("plain", 1), ("plain", 2)]
    assert [row["recall@10"] for row in read_results(folder / "results.csv")] == ["0.1000", "0.2000"]
    text = (folder / "README.md").read_text()
    assert "| .1500 ± .0707 |" in text and "make reproduce STUDY=tiny" in text
    assert (folder / "plot.svg").read_text().startswith("<svg")
    assert ".1500 ± .0707" in capsys.readouterr().out


def test_a_part_of_the_study_leaves_the_rest_as_it_was(tiny):
    folder, trained = tiny
    study.main(["tiny", "run"])
    study.main(["tiny", "run", "--seeds", "2", "--only", "plain"])
    assert trained == [("plain", 1), ("plain", 2), ("plain", 2)]
    assert len(read_results(folder / "results.csv")) == 2


def test_mistakes_are_refused_with_what_is_allowed(tiny, capsys):
    with pytest.raises(SystemExit):
        study.parse(["other", "table"])
    assert "tiny" in capsys.readouterr().err
    assert study.main(["tiny", "run", "--only", "plane"]) == 2


def test_commands_are_listed_for_every_run(capsys):
    assert study.main(["ranking", "commands"]) == 0
    plan = read_study(HERE / "ranking")
    assert capsys.readouterr().out.splitlines() == [by_hand(words, 1) for _, words in plan.commands]
