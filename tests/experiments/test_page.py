from __future__ import annotations

from dataclasses import replace

import pytest

from experiments import page
from experiments.plan import HERE, read_study, studies
from experiments.results import LABELS
from genrec.contracts import GenrecError
from tests.experiments.test_results import label_row


@pytest.mark.parametrize("name", studies())
def test_the_readme_is_what_plan_and_results_give(name):
    """Commands are those of study.yaml, tables those of results.csv."""
    study = read_study(HERE / name)
    text = study.page.read_text(encoding="utf-8")
    assert page.with_parts(text, study) == text


@pytest.mark.parametrize("name", studies())
def test_the_committed_plots_are_those_of_the_results(name):
    study = read_study(HERE / name)
    text = study.page.read_text(encoding="utf-8")
    for file, picture in page.pictures(study).items():
        assert (study.folder / file).read_text(encoding="utf-8") == picture
        assert f"]({file})" in text, "the page does not show it"


@pytest.mark.parametrize("name", studies())
def test_the_page_asks_a_question_and_says_how_to_answer_it_again(name):
    text = (HERE / name / "README.md").read_text(encoding="utf-8")
    assert "**Question.**" in text and f"make reproduce STUDY={name}" in text


def test_commands_are_those_of_the_plan():
    study = read_study(HERE / "lastfm")
    lines = page.commands(study).splitlines()
    assert (
        "OMP_NUM_THREADS=1 GENREC_DATA=data python -m genrec.run -m experiment=gat_lastfm data=lastfm seed=1,2,3"
        in lines
    )
    assert sum("genrec.run" in line for line in lines) == 4
    other = replace(study, threads=2, commands=(("table", ("model=fm", "data.tasks=[a]")),))
    assert "OMP_NUM_THREADS=2 GENREC_DATA=data python -m genrec.run model=fm 'data.tasks=[a]'" in page.commands(other)


def test_of_many_commands_the_first_and_last_of_each_table_are_shown():
    study = read_study(HERE / "ranking")
    shown = [line for line in page.commands(study).splitlines() if "genrec.run" in line]
    assert len(study.commands) > len(shown) == 4
    assert shown[0] == page.by_hand(study.commands[0][1], 1) and shown[-1] == page.by_hand(study.commands[-1][1], 1)


def test_time_is_the_mean_of_those_on_record_and_else_what_the_plan_says():
    ranking, beauty = read_study(HERE / "ranking"), read_study(HERE / "amazon_beauty")
    fm = replace(ranking.trainings[0], name="fm", data="shop", table="ranking", minutes=7.0)
    rows = [
        label_row("ranking", "fm", 1, 0.6, train_seconds="60.0"),
        label_row("ranking", "fm", 2, 0.6, train_seconds="180"),
    ]
    rows += [
        label_row("ranking", "din", 2, 0.6, train_seconds="900"),
        label_row("other", "fm", 2, 0.6, train_seconds="900"),
    ]
    assert page.minutes_of(fm, rows, LABELS) == 2.0
    assert page.minutes_of(fm, rows[2:], LABELS) == 7.0
    assert {each.name: each.minutes for each in beauty.trainings}["tiger_beauty"] == 30


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.2, "less than a minute"), (1.2, "about a minute"), (3.2, "about 4 minutes"), (150, "about 2.5 hours")],
)
def test_minutes_are_told_as_people_do(minutes, text):
    assert page.in_words(minutes) == text


def test_published_figures_are_asked_for():
    beauty = read_study(HERE / "amazon_beauty")
    rows = {row["model"]: row for row in page.published_rows(beauty)}
    assert rows["TIGER"]["recall@10"] == "0.0648" and rows["TIGER"]["filter_seen"] == "False"
    assert rows["eSASRec"]["filter_seen"] == "True" and all(row["source"] for row in rows.values())
    assert page.published_rows(replace(beauty, published=False)) == []


def test_text_goes_between_the_markers_and_missing_ones_are_named():
    study = read_study(HERE / "lastfm")
    text = page.between("a\n<!-- table: begin -->\nold\n<!-- table: end -->\nb", "table", "new", study)
    assert text == "a\n<!-- table: begin -->\nnew\n<!-- table: end -->\nb"
    with pytest.raises(GenrecError, match="needs the lines <!-- table: begin -->"):
        page.between("a", "table", "new", study)
