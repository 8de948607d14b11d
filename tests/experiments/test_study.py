from __future__ import annotations

import pytest

from experiments import study


def row(model: str, seed: int | str, masked: bool, recall: float, **changes) -> study.Row:
    metrics = {"recall@5": ".1", "ndcg@5": ".1", "recall@10": f"{recall:.4f}", "ndcg@10": ".2"}
    return {
        "data": "shop",
        "model": model,
        "seed": seed,
        "filter_seen": masked,
        **metrics,
        "train_minutes": "2",
        **changes,
    }


def test_a_result_is_replaced_by_a_newer_one_of_the_same_run(tmp_path):
    path = tmp_path / "results.csv"
    study.add([row("a", 1, False, 0.1), row("a", 2, False, 0.2)], path)
    study.add([row("a", 2, False, 0.3), row("a", 2, True, 0.4)], path)
    found = [(each["seed"], each["filter_seen"], each["recall@10"]) for each in study.read_results(path)]
    assert found == [("1", "False", "0.1000"), ("2", "False", "0.3000"), ("2", "True", "0.4000")]


def test_table_has_mean_and_sample_deviation_and_the_best_first(tmp_path):
    path = tmp_path / "results.csv"
    rows = [row("weak", "", False, 0.05, train_minutes=""), row("strong", 1, False, 0.1), row("strong", 2, False, 0.2)]
    study.add(rows, path)
    lines = study.table(study.read_results(path)).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["strong", "weak"]
    assert ".1500 ± .0707" in lines[0]  # sqrt((.05^2 + .05^2) / 1)
    assert lines[0].endswith("| 2 | 2.0 |")
    assert lines[1].endswith("|  |  |")


def test_masked_and_kept_are_separate_lines(tmp_path):
    path = tmp_path / "results.csv"
    study.add([row("a", 1, False, 0.1), row("a", 1, True, 0.2)], path)
    assert [line.split(" | ")[2] for line in study.table(study.read_results(path)).splitlines()[2:]] == [
        "kept",
        "masked",
    ]


def test_the_table_goes_between_the_markers(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    study.write_table([row("a", 1, False, 0.1)], page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and "| shop | a | kept |" in text


@pytest.mark.parametrize("name", study.studies())
def test_the_published_table_is_that_of_the_results(name):
    text = (study.HERE / name / "README.md").read_text(encoding="utf-8")
    shown = text.split(study.BEGIN)[1].split(study.END)[0].strip()
    rows = study.read_results(study.HERE / name / "results.csv")
    assert rows and shown == study.table(rows)


def test_an_unknown_study_and_one_name_for_two_recipes_are_refused(capsys):
    with pytest.raises(SystemExit):
        study.parse(["amazon", "table"])
    assert "amazon_beauty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        study.parse(["amazon_beauty", "run", "a", "b", "--as", "c"])
    assert "--as c names one recipe, and 2 were given" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["finished", "running", None])
def test_finished_runs_are_kept_and_killed_ones_continued(tmp_path, monkeypatch, state):
    folder = study.folder_of("recipe", "shop", 7, tmp_path)
    if state is not None:
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(f'{{"state": "{state}"}}')
    commands = []
    monkeypatch.setattr(study.subprocess, "run", lambda command, check: commands.append(command))
    assert study.train("recipe", "shop", 7, folder, tmp_path, ["model.dropout=0.1"]) == folder
    if state == "finished":
        assert commands == []
    else:
        (command,) = commands
        assert command[1:6] == ["-m", "genrec.run", "experiment=recipe", "data=shop", "seed=7"]
        assert command[6] == (f"resume={folder}" if state else f"hydra.run.dir={folder}")
        assert command[-1] == "model.dropout=0.1"
