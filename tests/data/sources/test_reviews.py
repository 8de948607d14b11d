from __future__ import annotations

import pytest

from genrec.contracts import GenrecError
from genrec.data.interactions import DataReport
from genrec.data.sources.reviews import parse_record, read_products, read_reviews


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": true, "b": null}', {"a": True, "b": None}),
        ("{'a': True, 'b': None, 'c': \"it's\"}", {"a": True, "b": None, "c": "it's"}),
        ("[1, 2]", None),
        ("open('x', 'w')", None),
        ("{'a': open('x', 'w')}", None),
        ("{'a': ", None),
        ("(" * 500 + ")" * 500, None),
        ("", None),
    ],
)
def test_lines_are_data_and_never_code(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_record(line) == expected
    assert not list(tmp_path.iterdir())


def test_reviews_without_fields_become_rows_with_gaps(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text('{"reviewerID": "u", "asin": "A", "unixReviewTime": 1370000001}\n{"overall": "five", "asin": 7}\n')
    frame = read_reviews(path, DataReport(), progress=False)
    assert frame.rows() == [("u", "A", 1370000001.0, None), (None, None, None, None)]


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text("<html>\n")
    with pytest.raises(GenrecError, match="holds no review"):
        read_reviews(path, DataReport(), progress=False)


def test_products_with_odd_fields(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text(
        "{'asin': 'A', 'price': 1234567.5, 'categories': 'none', 'title': '  '}\n{'asin': 'B', 'price': True}\n"
    )
    frame = read_products(path, {"A", "B"}, DataReport(), progress=False)
    assert frame.rows() == [("A", None, None, None, "1234567.5"), ("B", None, None, None, None)]
