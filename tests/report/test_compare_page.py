from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec.report.compare_page import compare_html, write_compare_page
from genrec.report.comparison import Comparison, Options, compare
from tests.report.conftest import Opened
from tests.report.page_reader import PageReader, point_at
from tests.report.run_folders import make_sweep
from tests.report.tested_runs import hits, make_row_run, make_user_run

FEW = Options(resamples=200)


def read(page: str) -> PageReader:
    reader = PageReader(page)
    assert reader.open_tags == []
    return reader


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    a = make_user_run(tmp_path / "a", hits(90, 0.2, 0), model="sasrec", config={"optimizer": {"lr": 0.1}}, seconds=5)
    b = make_user_run(tmp_path / "b", hits(90, 0.7, 1), config={"optimizer": {"lr": 0.2}}, seconds=9)
    return compare([str(a), str(b)], FEW)


def test_holds_every_part(found: Comparison, tmp_path: Path) -> None:
    path = write_compare_page(found, tmp_path / "below" / "page.html")
    page = path.read_text()
    reader = read(page)
    assert reader.headings == [
        "tiger against sasrec", "Differences", "Segments", "Wins and losses", "Users", "What was changed",
        "What it took", "Method",
    ]  # fmt: skip
    assert "tiger is better than sasrec in recall@10" in reader.text
    assert "200 times, as many test users as there are" in reader.text
    assert ["optimizer.lr", "0.1", "0.2"] in [row for table in reader.tables for row in table]


def test_pictures_show_every_metric_and_segment(found: Comparison) -> None:
    page = compare_html(found)
    for segment in found.segments:
        assert f'data-x="{segment.name}"' in page
    counted = found.of("recall@10")
    assert f"{counted.wins} users won, {counted.losses} lost" in page
    assert len(read(page).svgs) == 2 + 2 * len(found.metrics) + 1


def test_asks_nothing_of_the_network(found: Comparison) -> None:
    page = compare_html(found)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "@import" not in page


def test_what_others_named_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    users = [f"<img src=x>{user}" for user in range(40)]
    a, b = (
        make_user_run(tmp_path / name, hits(40, rate, 0), users=users, model=f"{name}{evil}", data=evil,
                      config={"data": {evil: name}})
        for name, rate in (("a", 0.2), ("b", 0.8))
    )  # fmt: skip
    page = compare_html(compare([str(a), str(b)], FEW))
    assert evil not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;img src=x&gt;" in page
    read(page)


def test_seeds_are_told(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s")
    for job in range(3):
        make_user_run(sweep / str(job), hits(60, 0.5, job), seed=job, overrides=[f"seed={job}"], model="gru4rec")
    page = compare_html(compare([str(make_user_run(tmp_path / "a", hits(60, 0.4, 9))), str(sweep)], FEW))
    assert "with seed noise" in page
    assert "over 3 seeds" in page
    assert 'class="thin"' in page
    read(page)


def test_three_runs_of_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    click = (rng.random(300) < 0.4).astype(float)
    runs = [
        make_row_run(tmp_path / name, {"click": click}, {"click": 0.5 * rng.random(300) + weight * click}, model=name,
                     groups=np.arange(300) // 10)
        for name, weight in (("a", 0.0), ("b", 0.1), ("c", 0.3))
    ]  # fmt: skip
    page = compare_html(compare([str(run) for run in runs], FEW))
    assert "b and c against a" in page
    assert "Difference of auc" in page
    assert "Difference of log_loss" in page
    assert "left of zero is better" in page
    assert "users, each with all of their rows," in page
    read(page)


def test_the_same_config_twice(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, 0)) for name in "ab")
    page = compare_html(compare([str(a), str(b)], FEW))
    assert "Nothing: the configs are the same." in page
    assert "are equal in recall@10, for every user" in page


class TestInABrowser:
    @pytest.fixture
    def path(self, found: Comparison, tmp_path: Path) -> Path:
        return write_compare_page(found, tmp_path / "page.html")

    @pytest.mark.parametrize("width", [375, 1280])
    def test_fits_and_asks_for_nothing(self, browser_page: Callable[..., Opened], path: Path, width: int) -> None:
        opened = browser_page(path, width=width)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.faults == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_marks_are_drawn_in_colour(
        self, browser_page: Callable[..., Opened], path: Path, found: Comparison, scheme: str
    ) -> None:
        page = browser_page(path, color_scheme=scheme).page
        circles = page.locator("#differences .forest circle")
        assert circles.count() == len(found.metrics)
        assert circles.first.bounding_box()["width"] > 6
        surface = page.locator("#differences figure").first.evaluate("one => getComputedStyle(one).backgroundColor")
        assert circles.first.evaluate("one => getComputedStyle(one).stroke") not in (surface, "none")

    def test_the_pointer_reads_an_interval(self, browser_page: Callable[..., Opened], path: Path) -> None:
        page = browser_page(path).page
        point_at(page.locator("#differences .forest .spot").first)
        shown = page.locator("#tip").inner_text()
        assert "recall@10" in shown
        assert re.search(r"tiger\s*\+0\.\d{4}\s+\[\+0\.\d{4} to \+0\.\d{4}\]", shown)


def test_the_command_below_the_users_can_be_pasted(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, seed), model="tiger")
            for seed, name in enumerate(("first", "it's second")))  # fmt: skip
    page = compare_html(compare([str(a), str(b)], Options(resamples=200)))
    line = next(html.unescape(text) for text in re.findall(r"<code>(.*?)</code>", page) if "genrec.recommend" in text)
    assert f"run={b}" in shlex.split(line)


def test_segments_are_said_to_be_judged_alone_also_after_holm(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, seed), model=name) for seed, name in enumerate("ab"))
    page = compare_html(compare([str(a), str(b)], Options(resamples=200, correction="holm")))
    assert "Each is judged alone" in page
