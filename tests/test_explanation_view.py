"""Explanations as people see them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from genrec.data.ragged import Ragged
from genrec.explanation_view import Names, draw, explanation_table, ties
from genrec.explanations import Evidence, Explanation, Link
from genrec.graph import ITEM, USER, Relation, TypedGraph
from genrec.tables import to_text

TAGS = Relation(ITEM, "tag", np.arange(3), np.arange(3), np.ones(3), ["rock", "r&b <live>", "jazz"])
EVIDENCE = [
    Evidence("interacts", ITEM, 1, 3.0, [Link("tag", 1, 0.3), Link("tag", 0, 0.2), Link(USER, 1, 0.1)]),
    Evidence("friend_of", USER, 1, 1.0, [Link(ITEM, 0, 0.4)]),
    Evidence("has_label", "tag", 2, -1.0, []),
]
WHY = Explanation(user=0, item=0, score=4.0, own=1.0, support=5.0, evidence=EVIDENCE)


@pytest.fixture
def names() -> Names:
    graph = TypedGraph(Ragged.from_rows([[0], [1]]), 3, None, {"has_tag": TAGS})
    dataset: Any = SimpleNamespace(
        titles=["Black & Blue", "Kind of [Blue]", "A title that is a good deal longer than its column"],
        log=SimpleNamespace(user_ids=np.array([70, 71])),
    )
    return Names(dataset, graph)


def test_the_table_names_neighbours_shares_and_ties(names: Names) -> None:
    lines = to_text(explanation_table(WHY, names), width=100).splitlines()
    assert lines[0] == "Why Black & Blue? (score 4.000)"
    assert [line.split("   ")[0].strip() for line in lines[-3:]] == [
        "you chose Kind of [Blue]",
        "your friend user 71",
        "has label: jazz",
    ]
    assert [re.search(r"-?\d+%", line).group() for line in lines[-3:]] == ["60%", "20%", "-20%"]  # pyright: ignore
    assert "tag r&b <live>, rock; 1 user of both" in lines[-3] and "chose it too" in lines[-2]


def test_long_lists_of_ties_are_counted(names: Names) -> None:
    tags = [Link("tag", node, 0.1) for node in (0, 1, 2, 0, 1)]
    assert ties([*tags, Link(USER, 0, 0.1), Link(USER, 1, 0.1)], names, of=ITEM) == (
        "tag rock, r&b <live>, jazz and 2 more; 2 users of both"
    )
    assert ties([], names, of=ITEM) == ""
    assert ties([Link(ITEM, 0, 0.1)], names, of=ITEM) == "directly"


def test_the_picture_is_sound_svg_with_every_name_and_wider_lines_for_more(names: Names) -> None:
    root = ElementTree.fromstring(draw(WHY, names))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("user 70", "Kind of [Blue]", "user 71", "rock", "r&b <live>", "Black & Blue", "60%", "20%"):
        assert name in texts
    assert "jazz" not in texts  # it speaks against the item
    blue = [
        float(node.attrib["stroke-width"])
        for node in root.iter("{http://www.w3.org/2000/svg}path")
        if node.attrib["stroke"] == "#1b6ca8"
    ]
    assert len(blue) == 2 and blue[0] > blue[1]
    assert draw(WHY, names) == draw(WHY, names)


def test_long_titles_are_cut_and_no_evidence_draws_too(names: Names) -> None:
    bare = Explanation(user=0, item=2, score=0.0, own=0.0, support=0.0, evidence=[])
    assert "A title that is a good de..." in draw(bare, names)
    assert bare.share(EVIDENCE[0]) == 0.0
