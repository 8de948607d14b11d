from __future__ import annotations

from xml.etree import ElementTree

from experiments.plan import Plot
from experiments.plot import draw
from experiments.results import ITEMS
from tests.experiments.test_results import item_row

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    item_row("strong", 1, False, 0.1),
    item_row("strong", 2, False, 0.2),
    item_row("weak & <small>", 1, False, 0.05),
    item_row("item_knn", "", False, 0.12),
    item_row("strong", 1, True, 0.3),
]
PLOT = Plot("recall@10")


def drawn(kind: str, name: str = "circle", **options) -> list[ElementTree.Element]:
    """The marks of a kind in the panels, without those of the legend."""
    root = ElementTree.fromstring(draw(ROWS, ITEMS, options.pop("plot", PLOT), **options))
    return [mark for row in root.iter(f"{SVG}g") if row.find(f"{SVG}title") is not None
            for mark in row.iter(f"{SVG}{name}") if mark.get("class") == kind]  # fmt: skip


def test_every_mean_and_every_seed_has_a_dot():
    assert len(drawn("mean")) == 3  # strong twice, weak; the baseline has a mark of its own
    assert len(drawn("seed")) == 4 and len(drawn("plain")) == 1
    assert len(drawn("spread", "path")) == 1  # two seeds in one group only


def test_dots_lie_where_their_values_are():
    low, high = sorted(float(dot.get("cx", 0)) for dot in drawn("seed")[:2])
    mean = float(drawn("mean")[0].get("cx", 0))
    assert abs(mean - (low + high) / 2) < 0.1
    weak = float(drawn("mean")[1].get("cx", 0))
    assert abs((low - weak) / (high - low) - 0.5) < 0.01  # .05 is half as far below .1 as .2 is above
    ys = [float(dot.get("cy", 0)) for dot in drawn("mean")[:2]]
    assert ys[0] < ys[1]  # the best is on top


def test_what_is_left_out_is_said_and_not_drawn():
    text = draw(ROWS, ITEMS, Plot("recall@10", ("item_knn",)))
    assert "not drawn: item_knn" in text and drawn("plain", plot=Plot("recall@10", ("item_knn",))) == []


def test_published_figures_are_diamonds_where_their_protocol_is_known():
    told = {
        "data": "shop",
        "model": "THEM",
        "seed": "",
        "filter_seen": "False",
        "recall@10": "0.15",
        "source": "a paper",
    }
    assert len(drawn("published", "path", published=[told])) == 1
    assert drawn("published", "path", published=[{**told, "filter_seen": ""}]) == []


def test_new_figures_are_drawn_below_the_committed_ones():
    again = [item_row("strong", 1, False, 0.12)]
    (new,), old = drawn("mean again", again=again), drawn("mean", again=again)[0]
    assert float(new.get("cy", 0)) > float(old.get("cy", 0))
    assert float(new.get("cx", 0)) < float(old.get("cx", 0))  # .12 is below the mean of .15


def test_colours_follow_the_scheme_and_names_are_escaped():
    text = draw(ROWS, ITEMS, PLOT)
    assert "prefers-color-scheme: dark" in text and "weak &amp; &lt;small&gt;" in text
    root = ElementTree.fromstring(text)
    used = {name for mark in root.iter() for name in (mark.get("class") or "").split()}
    assert all(f".{name} " in text for name in used)  # no mark without a colour


def test_the_same_rows_in_any_order_give_the_same_picture():
    assert draw(ROWS, ITEMS, PLOT) == draw([ROWS[4], *ROWS[:4]], ITEMS, PLOT) != draw(ROWS[1:], ITEMS, PLOT)
