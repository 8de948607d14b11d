"""Graph models from the command line to the explanation, on tiny invented music."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from genrec.artifacts import read_json
from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.interactions import SourceData
from genrec.data.sources.synthetic_music import SyntheticMusicSource
from genrec.pipeline import Outcome, execute, load_run
from genrec.recommend import Recommender, answer, parse

MUSIC = ["data=synthetic_music", "data.source.num_users=60", "data.source.num_items=80", "data.source.num_artists=12",
         "data.source.num_genres=4", "data.source.mean_length=20", "split=ratio_per_user"]  # fmt: skip
COMMON = ["progress=false", "logger=none", "hardware=cpu", "hardware.num_threads=1", "trainer.max_epochs=3"]


def run(root: Path, name: str, *overrides: str) -> Outcome:
    places = [f"runs_dir={root}", f"cache_dir={root / 'cache'}"]
    return execute(compose_config([*places, *COMMON, *MUSIC, *overrides], output_dir=root / name))


@pytest.fixture(scope="module")
def gat(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(tmp_path_factory.mktemp("graph"), "gat", "model=gat", "trainer=advanced", "model.embedding_dim=16")


def test_seen_items_are_masked_without_being_told(gat: Outcome) -> None:
    loaded = load_run(gat.folder)
    assert loaded.config.filter_seen is True
    known = set(loaded.dataset.sequences.history("all")[3].tolist())
    named = Recommender(loaded).for_user(loaded.dataset.log.user_ids[3], k=20)
    found = {loaded.dataset.item_index(item) for item in named["item_id"].to_list()}
    assert len(found) == 20 and not found & known


def test_the_protocol_can_be_told_otherwise(tmp_path: Path) -> None:
    kept = run(tmp_path, "kept", "model=bpr_mf", "trainer=simple", "filter_seen=false")
    masked = run(tmp_path, "masked", "model=bpr_mf", "trainer=simple")
    assert kept.final["test/recall@10"] < masked.final["test/recall@10"]
    assert kept.final["baseline/popularity/test/recall@10"] < masked.final["baseline/popularity/test/recall@10"]


def test_a_graph_run_is_complete(gat: Outcome) -> None:
    final = read_json(gat.folder / "metrics.json")["final"]
    assert {"test/recall@10", "test/coverage@10", "test/gini@10", "ceiling/test/recall@10", "val/recall@10"} <= set(
        final
    )
    assert 0 < final["test/recall@10"] < final["ceiling/test/recall@10"]


def test_explanations_from_the_command_line(gat: Outcome, tmp_path: Path) -> None:
    user = str(load_run(gat.folder).dataset.log.user_ids[5])
    console = Console(record=True, width=120)
    picture = tmp_path / "why.svg"
    answer(parse([f"run={gat.folder}", f"user={user}", "k=2", f"picture={picture}"]), console)
    text = console.export_text()
    assert text.count("Why ") == 2 and "you chose" in text and "tied to it by" in text
    assert picture.read_text().startswith("<svg") and f"user {user}" in picture.read_text()


def test_a_changed_relation_is_refused(gat: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SyntheticMusicSource.load

    def load(self: SyntheticMusicSource) -> SourceData:
        data = original(self)
        return replace(data, relations={name: data.relations[name] for name in ("has_genre", "performed_by")})

    monkeypatch.setattr(SyntheticMusicSource, "load", load)
    with pytest.raises(GenrecError, match="The graph has changed since"):
        load_run(gat.folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["history=[1]", "explain=true"], "give user=ID with it"),
        (["user=1", "picture=why.png"], "must end in .svg"),
        (["user=1", "explain=perhaps"], "true or false"),
    ],
)
def test_wrong_questions_are_answered(words: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        parse(words)
