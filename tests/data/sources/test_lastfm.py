from __future__ import annotations

import pytest

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.sources.lastfm import LastFMSource
from genrec.data.splits import GlobalTime, RatioPerUser

PREPARED = {
    "user_artists.tsv": "user_id\tartist_id\tplay_count\n2\t51\t9\n2\t52\t8\n3\t52\t7\n",
    "artists.csv": "artist_id,name\n51,Duran Duran\n52,Björk\n53,Nobody\n",
    "tags.csv": "tag_id,tag\n1,pop\n2,80s\n3,ice\n",
    "user_tagged_artists.tsv": "user_id\tartist_id\ttag_id\tdate\n2\t51\t1\td\n3\t51\t2\td\n4\t51\t2\td\n2\t52\t3\td\n",
}
ORIGINAL = {
    "user_artists.dat": "userID\tartistID\tweight\n2\t51\t9\n2\t52\t8\n3\t52\t7\n",
    "artists.dat": "id\tname\turl\tpictureURL\n51\tDuran Duran\tu\tp\n52\tBjörk\tu\tp\n53\tNobody\tu\tp\n",
    "tags.dat": "tagID\ttagValue\n1\tpop\n2\t80s\n3\tice\n",
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t51\t1\t1\t4\t2009\n3\t51\t2\t1\t4\t2009\n"
    "4\t51\t2\t1\t4\t2009\n2\t52\t3\t1\t4\t2009\n",
}


@pytest.mark.parametrize("files", [PREPARED, ORIGINAL], ids=["prepared", "original"])
def test_both_editions_give_the_same(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = Dataset(LastFMSource(path=str(tmp_path), num_tags=2, k_core=1), RatioPerUser())
    assert dataset.titles == ["Duran Duran", "Björk"]
    assert dataset.texts == ["Duran Duran. 80s, pop", "Björk. ice"]
    assert dataset.log.extras["play_count"].tolist() == [9, 8, 7]


@pytest.mark.parametrize("files", [PREPARED, ORIGINAL], ids=["prepared", "original"])
def test_tags_and_friends_are_relations(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "user_friends.tsv").write_text("user_id\tfriend_id\n2\t3\n3\t2\n2\t99\n")
    relations = LastFMSource(path=str(tmp_path), k_core=1, min_tag_count=1).load().relations
    tags, friends = relations["has_tag"], relations["friend_of"]
    named = [(item, tags.names[tag]) for item, tag in zip(tags.sources, tags.targets, strict=True)]
    assert dict(zip(named, tags.weights, strict=True)) == {(0, "80s"): 2.0, (0, "pop"): 1.0, (1, "ice"): 1.0}
    assert list(zip(friends.sources, friends.targets, strict=True)) == [(0, 1), (1, 0)]
    frequent = LastFMSource(path=str(tmp_path), k_core=1, min_tag_count=2).load().relations["has_tag"]
    assert frequent.names == ["80s"] and len(frequent) == 1


def test_equally_frequent_tags_come_in_one_order_every_time(tmp_path):
    """A graph whose edges change places would train to other bits, and look like other data."""
    pairs = [(user, 50 + artist) for user in range(40) for artist in range(30)]
    plays = ["user_id\tartist_id\tplay_count", *(f"{user}\t{artist}\t1" for user, artist in pairs)]
    uses = ["user_id\tartist_id\ttag_id\tdate", *(f"{u}\t{a}\t{1 + (u + a) % 5}\td" for u, a in pairs)]
    files = {
        "user_artists.tsv": plays,
        "artists.csv": ["artist_id,name", *(f"{50 + n},Band {n}" for n in range(30))],
        "tags.csv": ["tag_id,tag", *(f"{n},tag {n}" for n in range(1, 6))],
        "user_tagged_artists.tsv": uses,
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    prints = {Dataset(LastFMSource(path=str(tmp_path)), RatioPerUser()).graph.fingerprint for _ in range(6)}
    assert len(prints) == 1


def test_missing_times_are_reported_and_not_invented(tmp_path):
    for name, text in PREPARED.items():
        (tmp_path / name).write_text(text)
    source = LastFMSource(path=str(tmp_path), k_core=1)
    assert source.load().log.timestamps is None
    assert "split=ratio_per_user split.order=random" in source.load().report.lines()[-1]
    with pytest.raises(GenrecError, match="needs timestamps"):
        _ = Dataset(source, GlobalTime()).split


def test_missing_folder(tmp_path):
    with pytest.raises(GenrecError, match="user_artists"):
        LastFMSource(path=str(tmp_path)).load()


def test_hetrec(real):
    data = LastFMSource(path=str(real("lastfm_hetrec")), k_core=1).load()
    assert (data.log.num_users, data.log.num_items, len(data.log)) == (1892, 17_632, 92_834)
    assert len(LastFMSource(path=str(real("lastfm_hetrec"))).load().log) == 71_355
