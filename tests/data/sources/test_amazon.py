from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.interactions import DataReport
from genrec.data.sources.amazon import AmazonSource, read_sequences
from genrec.data.splits import LeaveOneOut


def compress(path, text):
    path.write_bytes(gzip.compress(text.encode()))


def raw_files():
    """Reviews of users u0..u2 x items A0..A2 (a 3-core), and of two who fall out; products in both notations."""
    reviews = []
    for item in range(3):
        for user in range(3):
            stamp = 1000 - 10 * item if user == 0 else 500  # user 0 met the items in reverse, the others on one day
            reviews.append({"reviewerID": f"u{user}", "asin": f"A{item}", "overall": 4.0, "unixReviewTime": stamp})
    reviews += [{"reviewerID": "u3", "asin": "A0", "overall": 1.0, "unixReviewTime": 5}]
    reviews += [{"reviewerID": "u0", "asin": "A9", "overall": 1.0, "unixReviewTime": 5}, {"asin": "A1"}]
    lines = [json.dumps(review) for review in reviews]
    products = [
        "{'asin': 'A0', 'title': \"Nail &amp;  File's\", 'price': 12.0, 'brand': 'OPI', "
        "'categories': [['Beauty', 'Nails']]}",
        '{"asin": "A1", "title": "Balm", "brand": "Unknown", "price": 3.5, "categories": [["Beauty"]]}',
        "{'asin': 'A2', 'categories': __import__('os').system('touch evaluated')}",
        "{'asin': 'A7', 'title': 'not wanted'}",
    ]
    return gzip.compress("\n".join([*lines, "garbage", ""]).encode()), gzip.compress("\n".join(products).encode())


@pytest.fixture
def source(server, tmp_path):
    reviews, products = raw_files()
    server.files = {"/reviews_Beauty.json.gz": reviews, "/meta_Beauty.json.gz": products}

    def make(**options):
        defaults = {"path": str(tmp_path / "beauty"), "download": True, "base_url": server.url, "k_core": 3}
        return AmazonSource(**{**defaults, **options}, progress=False)

    return make


def test_original_files_are_fetched_and_cleaned(source, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = source().load()
    log = data.log
    assert log.user_ids.tolist() == ["u0", "u1", "u2"]
    assert log.item_ids.tolist() == ["A0", "A1", "A2"]
    assert log.items.tolist() == [2, 1, 0, 0, 1, 2, 0, 1, 2]  # by time; within a day in the order of the file
    assert log.extras["rating"].tolist() == [4.0] * 9
    dataset = Dataset(source(), LeaveOneOut())
    assert dataset.titles == ["Nail & File's", "Balm", "item A2"]
    assert dataset.texts == ["Nail & File's. OPI. Beauty > Nails. $12", "Balm. Beauty. $3.5", ""]
    counts = data.report.counts
    assert (counts["lines_unreadable"], counts["rows_missing_user"], counts["rows_filtered"]) == (2, 1, 2)
    assert counts["unknown_items"] == 1
    assert not (tmp_path / "evaluated").exists()  # SPEC E, "eval on downloaded text"


def test_cleaned_data_are_read_again_without_the_server(source, server):
    first = source().load()
    requests = len(server.requests)
    again = source().load()
    assert len(server.requests) == requests == 2
    assert again.log.fingerprint == first.log.fingerprint
    assert again.report.lines() == first.report.lines()
    offline = source(download=False).load()
    assert offline.log.fingerprint == first.log.fingerprint


def test_another_k_core_is_cleaned_anew(source):
    assert source(k_core=3).load().log.num_items == 3
    assert source(k_core=1).load().log.num_items == 4


def test_changed_files_are_cleaned_anew(source, tmp_path):
    source().load()
    line = json.dumps({"reviewerID": "u1", "asin": "A2", "unixReviewTime": 9, "overall": 2.0})
    compress(tmp_path / "beauty" / "reviews_Beauty.json.gz", "\n".join([line] * 3))
    with pytest.raises(GenrecError, match="No interaction is left"):
        source().load()


def test_reviews_alone_serve_without_text(source, tmp_path):
    folder = tmp_path / "beauty"
    folder.mkdir()
    (folder / "reviews_Beauty.json.gz").write_bytes(raw_files()[0])
    dataset = Dataset(source(download=False), LeaveOneOut())
    assert not dataset.has_text
    assert any("meta_Beauty.json.gz is not there" in line for line in dataset.report.lines())


def test_a_wrong_hash_stops_the_download(source):
    with pytest.raises(GenrecError, match="sha256"):
        source(sha256={"reviews_Beauty.json.gz": "0" * 64}).load()
    with pytest.raises(GenrecError, match=r"sha256 names other.gz.*reviews_Beauty"):
        source(sha256={"other.gz": "0"})


def test_a_truncated_file_is_named(source, tmp_path):
    folder = tmp_path / "beauty"
    folder.mkdir()
    (folder / "reviews_Beauty.json.gz").write_bytes(raw_files()[0][:-20])
    with pytest.raises(GenrecError, match=r"reviews_Beauty\.json\.gz is damaged"):
        source(download=False).load()


def test_a_missing_folder_names_every_way_out(tmp_path):
    with pytest.raises(GenrecError, match=r"GENREC_DATA.*data\.source\.download=true"):
        AmazonSource(path=str(tmp_path / "none")).load()


def test_sequences_alone_keep_their_order(tmp_path):
    compress(tmp_path / "sequences.txt.gz", "7 3 1 2 3\n8\n9 2 1  5\n\n")
    data = AmazonSource(path=str(tmp_path)).load()
    assert data.log.frame().rows() == [(7, 3), (7, 1), (7, 2), (7, 3), (9, 2), (9, 1), (9, 5)]
    assert data.report.counts["empty_users"] == 1
    assert not Dataset(AmazonSource(path=str(tmp_path)), LeaveOneOut()).has_text


def test_prepared_interactions_with_items(tmp_path):
    (tmp_path / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n1\t2\t5\n1\t1\t5\n1\t3\t6\n")
    (tmp_path / "items.csv").write_text(
        'item_id,title,brand,categories,price\n1,"A, a",,X|Y,3\n2,B,Co,X,\n3,,,,\n4,Unused,,X,1\n'
    )
    dataset = Dataset(AmazonSource(path=str(tmp_path)), LeaveOneOut())
    assert dataset.log.items.tolist() == [1, 0, 2]
    assert dataset.texts == ["A, a. X > Y. $3", "B. Co. X", "", "Unused. X. $1"]
    assert dataset.titles[2] == "item 3"


def test_beauty_is_the_data_of_the_literature(real):
    folder = real("amazon_beauty")
    dataset = Dataset(AmazonSource(path=str(folder)), LeaveOneOut())
    assert (dataset.num_users, dataset.num_items, len(dataset.log)) == (22_363, 12_101, 198_502)
    np.testing.assert_array_equal(dataset.log.item_ids, np.arange(1, 12_102))
    sequences = read_sequences(folder / "sequences.txt.gz", DataReport())
    np.testing.assert_array_equal(sequences["item_id"].cast(int).to_numpy(), dataset.log.items + 1)
    np.testing.assert_array_equal(sequences["user_id"].cast(int).to_numpy(), dataset.log.users + 1)
    assert dataset.texts[1] == (
        "OPI Red Shatter Crackle Nail Polish E55 New. OPI. Beauty > Makeup > Nails > Nail Polish. $3.04"
    )
    assert sum(title.startswith("item ") for title in dataset.titles) == 7
