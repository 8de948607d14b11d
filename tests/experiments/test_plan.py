from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from experiments.plan import HERE, PLAN_FILE, read_study, studies
from genrec.contracts import GenrecError

PLAN = {
    "question": "Does it\n work?",
    "rows": "items",
    "seeds": [1, 2],
    "words": ["logger=none"],
    "plot": {"metric": "recall@10"},
    "runs": [
        {"recipe": "quick", "data": "synthetic", "name": "plain", "words": [["a=1", "b=2"], "c=3"]},
        {"model": ["fm", "din"], "data": ["x", "y"], "seeds": [7]},
    ],
}


def study(folder: Path, **changes):
    (folder / PLAN_FILE).write_text(yaml.safe_dump({**PLAN, **changes}))
    return read_study(folder)


def test_every_combination_is_a_training_and_every_entry_a_command(tmp_path):
    plan = study(tmp_path)
    assert plan.question == "Does it work?"
    assert [(each.name, each.data, each.seeds) for each in plan.trainings] == [
        ("plain", "synthetic", (1, 2)),
        ("fm", "x", (7,)),
        ("fm", "y", (7,)),
        ("din", "x", (7,)),
        ("din", "y", (7,)),
    ]
    assert plan.trainings[0].words == ("experiment=quick", "data=synthetic", "logger=none", "a=1", "b=2", "c=3")
    assert plan.trainings[4].words == ("model=din", "data=y", "logger=none")
    assert [" ".join(words) for _, words in plan.commands] == [
        "-m experiment=quick data=synthetic seed=1,2 logger=none a=1 b=2 c=3",
        "-m model=fm,din data=x,y seed=7 logger=none",
    ]


def test_trainings_are_chosen_by_name_data_and_seed(tmp_path):
    plan = study(tmp_path)
    assert [(each.name, each.seeds) for each in plan.chosen(seeds=[2, 7])][:2] == [("plain", (2,)), ("fm", (7,))]
    assert [(each.name, each.data) for each in plan.chosen(["fm", "plain"], ["y"])] == [("fm", "y")]
    with pytest.raises(GenrecError, match=r"--only dim: unknown\. Allowed: din, fm, plain"):
        plan.chosen(["dim"])
    with pytest.raises(GenrecError, match="no training of these names, data and seeds"):
        plan.chosen(["fm"], seeds=[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, "sedes: unknown"),
        ({"rows": "users"}, "users: unknown. Allowed: items, labels"),
        ({"runs": [{"data": "x"}]}, "give either a recipe"),
        ({"runs": [{"model": "fm", "recipe": "quick", "data": "x"}]}, "give either a recipe"),
        ({"runs": [{"model": "fm", "data": "x", "override": []}]}, "override: unknown"),
        ({"runs": [{"model": "fm", "data": "x", "table": "other"}]}, "other: unknown. Allowed: table"),
        (
            {"runs": [{"model": "fm", "data": "x"}, {"model": "din", "name": "fm", "data": "x"}]},
            "two runs are called fm",
        ),
    ],
)
def test_a_wrong_plan_is_refused_with_a_sentence(tmp_path, changes, message):
    with pytest.raises(GenrecError, match=message):
        study(tmp_path, **changes)


def test_a_folder_without_a_plan_names_those_that_have_one():
    with pytest.raises(GenrecError, match="Studies: amazon_beauty, curriculum, lastfm, matching, ranking"):
        read_study(HERE / "speed")


@pytest.mark.parametrize("name", studies())
def test_results_are_those_of_the_plan_and_of_nothing_else(name):
    plan = read_study(HERE / name)
    with plan.results.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"]]
    kept = {"False": "kept", "True": "masked", None: None}
    measured = {(r.get("table"), r["data"], r["model"], r["seed"], kept[r.get("filter_seen")]) for r in rows}
    planned = {
        (each.table if plan.rows == "labels" else None, each.data, each.name, str(seed), protocol)
        for each in plan.trainings
        for seed in each.seeds
        for protocol in (each.protocols if plan.rows == "items" else [None])
    }
    assert measured == planned


@pytest.mark.parametrize("name", studies())
def test_baselines_are_measured_once_for_each_data_set(name):
    plan = read_study(HERE / name)
    if plan.rows == "items":
        measured = [each.data for each in plan.trainings if each.baselines]
        assert sorted(measured) == sorted({each.data for each in plan.trainings})


@pytest.mark.parametrize("name", studies())
def test_every_training_is_a_config_that_composes(name):
    from genrec.config import check_or_raise, compose_config

    plan = read_study(HERE / name)
    distinct = {each.words[0] + each.table: each for each in plan.trainings}
    for each in distinct.values():
        check_or_raise(compose_config([*each.words, "seed=1"], output_dir=Path("outputs")))
