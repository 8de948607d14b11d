import fcntl
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from genrec.contracts import GenrecError
from genrec.records import read_sweep
from genrec.report.run_page import write_run_page
from genrec.report.sweep_page import sweep_page, write_sweep_page
from genrec.report.sweep_tables import common
from tests.report.fake_sweep import MONITOR, STARTED, fake_run, fake_sweep
from tests.report.page_reader import point_at


class Page(HTMLParser):
    """What a page holds: whether its elements close, its text without style and script, its links, its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.data = ""
        self.faults: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if "script" in self.open and data.startswith("{"):
            self.data = data
        if not {"script", "style", "title"} & set(self.open):
            self.words.append(data)
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += data


def page_of(folder: Path) -> Page:
    path = write_sweep_page(folder)
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open and not page.faults
    return page


def table(page: Page, first: str) -> list[dict[str, str]]:
    """The table whose first heading is ``first`` and that has a heading ``state``, a mapping per row."""
    (head,) = [row for row in page.rows if row[:1] == [first] and "time" in row]
    start = page.rows.index(head) + 1
    rows = [row for row in page.rows[start:] if len(row) == len(head)]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture
def sweep(tmp_path) -> Path:
    fake_sweep(tmp_path, command=["-m", "sweep=lr_patience", "data.path=it's mine.csv"])
    values = {("1e-3", 2): 0.2, ("1e-3", 4): 0.3, ("3e-3", 2): 0.4, ("3e-3", 4): 0.5}
    for number, ((lr, patience), value) in enumerate(values.items()):
        given = {"sweep": "lr_patience", "trainer.patience": patience, "optimizer.lr": lr}
        fake_run(tmp_path / str(number), given, value, started=STARTED + 60 * number)
    return tmp_path


def test_a_finished_sweep_answers_what_was_best_and_how_to_run_it(sweep):
    (sweep / "3" / "report.html").write_text("a page")
    page = page_of(sweep)
    assert "highest val/recall@10 0.5000 run 3" in page.text
    assert "python -m genrec.run trainer=advanced trainer.patience=4 optimizer.lr=3e-3" in page.text
    assert "'data.path=it'\"'\"'s mine.csv'" in page.text  # the command that started it, as a shell takes it
    assert "3/report.html" in page.links and "2/" in page.links
    assert "4 4 finished" in page.text and "10 min 00 s" in page.text and "4 min 00 s of runs" in page.text
    assert "resume=" not in page.text and "What went wrong" not in page.text


def test_the_table_has_every_run_the_best_first(sweep):
    given = {"sweep": "lr_patience", "trainer.patience": 8, "optimizer.lr": "1e-2"}
    fake_run(sweep / "4", given, state="failed", error="nan")
    fake_run(sweep / "5", given, state="pruned", curve=[0.1, 0.9, 0.2])
    rows = table(page_of(sweep), "run")
    assert [row["run"] for row in rows] == ["3", "2", "1", "0", "5", "4"]
    assert rows[0] == {
        "run": "3", "state": "finished", MONITOR: "0.5000", "patience": "4", "lr": "3e-3", "test/recall@10": "0.4500",
        "test/ndcg@10": "0.2500", "best epoch": "10 of 10", "time": "1 min 00 s",
    }  # fmt: skip
    assert (rows[4][MONITOR], rows[4]["best epoch"]) == ("0.9000", "2 of 3")
    assert rows[5][MONITOR] == "-"


def test_a_smaller_objective_is_better_where_the_sweep_says_so(tmp_path):
    fake_sweep(tmp_path, objectives=[("val/loss", "min")])
    for number, value in enumerate([3.0, 1.0, 2.0]):
        fake_run(tmp_path / str(number), {"a": number}, value, monitor="val/loss", direction="min")
    page = page_of(tmp_path)
    assert "lowest val/loss 1.0000 run 1" in page.text
    assert [row["run"] for row in table(page, "run")] == ["1", "2", "0"]


def test_a_sweep_that_runs_says_so(sweep):
    fake_sweep(sweep, state="running")
    fake_run(sweep / "4", {"trainer.patience": 2, "optimizer.lr": "1e-2"}, state="running", curve=[0.1])
    with open(sweep / ".lock", "w") as first, open(sweep / "4" / ".lock", "w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX)
        page = page_of(sweep)
        later = Page(sweep_page(read_sweep(sweep), now=STARTED + 7200))
    assert "The sweep is running: 4 runs have finished." in page.text and "4 finished, 1 running" in page.text
    assert "2 h 00 min" in later.text
    assert "resume=" not in page.text  # nobody is to start it twice


def test_a_killed_sweep_says_how_to_go_on(sweep, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    fake_sweep(sweep, state="running", command=["-m", "optimizer.lr=1e-3,3e-3"])
    fake_run(sweep / "4", {"trainer.patience": 2, "optimizer.lr": "1e-2"}, state="running", curve=[0.1])
    page = page_of(sweep)
    assert "The sweep was killed after 5 runs." in page.text
    assert f"python -m genrec.run -m optimizer.lr=1e-3,3e-3 resume={sweep.name}" in page.text
    assert "killed" in page.text and "What went wrong" in page.text
    assert "4 min 00 s" in page.text  # the wall time ends with what was written last, not now


def test_failures_stand_with_their_reasons(sweep):
    error = 'RuntimeError: <script>alert("no")</script> & more'
    fake_run(sweep / "4", {"trainer.patience": "<i>8</i>", "optimizer.lr": "1e-2"}, state="failed", error=error)
    text = write_sweep_page(sweep).read_text()
    page = Page(text)
    assert not page.open and not page.faults
    (row,) = [row for row in page.rows if error in row]
    assert row == ["4", "failed", error, "patience <i>8</i>, lr 1e-2"]
    assert "<script>alert" not in text and "<i>8" not in text


def test_the_script_is_told_of_every_run(sweep):
    fake_run(sweep / "4", {"trainer.patience": "</script>", "optimizer.lr": "1e-2"}, state="failed")
    told = json.loads(page_of(sweep).data)
    assert set(told) == {"0", "1", "2", "3", "4"}
    assert told["3"]["head"] == "run 3" and told["4"]["head"] == "run 4 (failed)"
    assert [MONITOR, "0.5000"] in told["3"]["lines"] and ["patience", "</script>"] in told["4"]["lines"]


def test_nothing_finished_and_nothing_started(tmp_path):
    fake_sweep(tmp_path / "none", state="running")
    assert "No run has started yet." in page_of(tmp_path / "none").text
    for number in range(2):
        fake_run(tmp_path / "bad" / str(number), {"a": number}, state="failed", error="a reason")
    page = page_of(fake_sweep(tmp_path / "bad"))
    assert "No run has finished." in page.text and "a reason" in page.text and "The best run again" not in page.text


def test_a_folder_from_before_sweep_json_and_without_any_file_but_run_json(tmp_path):
    for number in range(3):
        fake_run(tmp_path / str(number), {"a": number}, 0.1 * number)
    for name in ("config.yaml", "history.json", "timing.json", "metrics.json"):
        (tmp_path / "0" / name).unlink()
    page = page_of(tmp_path)
    assert "highest val/recall@10 0.2000 run 2" in page.text


def test_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(GenrecError, match="not the folder of a sweep"):
        write_sweep_page(tmp_path)


def test_a_page_needs_nothing_but_itself(sweep):
    text = write_sweep_page(sweep).read_text()
    outside = [link for link in Page(text).links if re.match(r"\w+:", link) and not link.startswith("data:")]
    assert not outside and "@import" not in text and "url(" not in text
    assert [path.name for path in sweep.iterdir() if path.name.startswith(".")] == []  # nothing half-written stays


def test_pruned_runs_say_what_they_saved(sweep):
    for number in (4, 5):
        fake_run(sweep / str(number), {"optimizer.lr": number}, state="pruned", curve=[0.1, 0.1])
    assert "pruned 2 after 20% of the epochs of a finished run" in page_of(sweep).text


def test_seeds_are_told_by_their_mean(tmp_path):
    fake_sweep(tmp_path)
    values = {"1e-3": [0.30, 0.33, 0.36], "3e-3": [0.41, 0.44, 0.47]}
    for number, (lr, seed) in enumerate((lr, seed) for lr in values for seed in range(3)):
        fake_run(tmp_path / str(number), {"optimizer.lr": lr, "seed": seed}, values[lr][seed])
    page = page_of(tmp_path)
    assert "highest val/recall@10 0.4400 ± 0.0300 over 3 seeds" in page.text
    assert "[0.3655, 0.5145]" in page.text  # 0.44 ± 4.3027 * 0.03 / sqrt(3)
    assert page.text.index("0.4400 ± 0.0300") < page.text.index("0.3300 ± 0.0300")  # the better setting first
    assert "run 5" in page.text and "python -m genrec.run seed=2 optimizer.lr=3e-3" in page.text


def test_seeds_alone_are_no_search(tmp_path):
    fake_sweep(tmp_path)
    for seed in range(4):
        fake_run(tmp_path / str(seed), {"seed": seed}, 0.3 + seed / 100)
    page = page_of(tmp_path)
    assert page.text.startswith("genrec") and "Seeds: tiger on synthetic" in page.text and "Over seeds" in page.text
    assert "What mattered" not in page.text and "Parameter by parameter" not in page.text


def test_two_objectives_have_a_front(tmp_path):
    fake_sweep(tmp_path, objectives=[(MONITOR, "max"), ("seconds/total", "min")])
    for number, (value, seconds) in enumerate([(0.5, 90.0), (0.3, 30.0), (0.2, 60.0)]):
        fake_run(tmp_path / str(number), {"a": number}, value, seconds=seconds)
    page = page_of(tmp_path)
    assert "highest val/recall@10 0.5000 run 0" in page.text and "lowest seconds/total 30.00 run 1" in page.text
    assert "The front: 2 runs" in page.text


def test_what_all_configs_share():
    configs = [
        {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": None, "g": True},
        {"a": {"b": 2, "c": [1, 2]}, "d": {"e": 2}, "f": None, "g": 1},
    ]
    assert common(configs) == {"a": {"c": [1, 2]}, "f": None}
    assert common([]) == {}


def test_the_shared_config_is_on_the_page(sweep):
    page = page_of(sweep)
    assert "without what differs between the 4 runs" in page.text
    assert "seed: 42" in page.text and "output_dir" not in page.text


# ---- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Thirty runs with a failed and several pruned ones, under names longer than their room."""
    tmp_path = tmp_path_factory.mktemp("large")
    fake_sweep(tmp_path, sweeper="optuna")
    for number in range(30):
        lr, codes = 10 ** (-4 + number % 7 / 3), 64 * (1 + number % 3)
        given = {"optimizer.lr": lr, "tokenizer.num_codes_of_each_level": codes, "model": ["gat", "tiger"][number % 2]}
        value = 0.3 + 0.01 * (number * 7 % 13) + (0.2 if number == 16 else 0)
        state = "failed" if number == 4 else "pruned" if number % 6 == 5 else "finished"
        curve = [0.2, 0.25] if state == "pruned" else None
        fake_run(tmp_path / str(number), given, None if state == "failed" else value, state=state, curve=curve)
    write_sweep_page(tmp_path)
    return tmp_path / "report.html"


def test_the_charts_are_drawn(large, browser_page):
    opened = browser_page(large)
    page = opened.page
    assert opened.faults == [] and opened.requests == [large.as_uri()]
    assert page.locator("svg.parallel a.run").count() == 30
    lengths = page.eval_on_selector_all("svg.parallel .line", "lines => lines.map(line => line.getTotalLength())")
    assert min(lengths) > 400
    for kind in ("importance", "slice", "curves", "progress-chart"):
        for box in [chart.bounding_box() for chart in page.locator(f"svg.{kind}").all()]:
            assert box["width"] > 200 and box["height"] > 80, kind
    assert page.locator("svg.slice").count() == 3 and page.locator("svg.importance .bar").count() == 3


def test_no_label_of_an_axis_covers_another(large, browser_page):
    page = browser_page(large).page
    boxes = page.eval_on_selector_all(
        "svg.parallel text", "all => all.map(one => { const b = one.getBoundingClientRect();"
        " return [b.left, b.right, b.top, b.bottom, one.textContent]; })",
    )  # fmt: skip
    for index, (left, right, top, bottom, words) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart = right <= other[0] or other[1] <= left or bottom - 2 <= other[2] or other[3] <= top + 2
            assert apart, (words, other[4])


def test_a_click_on_a_heading_sorts_the_runs(large, browser_page):
    page = browser_page(large).page
    rows = "#all-runs tbody tr th"
    assert page.locator(rows).first.inner_text() == "16"  # the best
    page.locator("#all-runs thead button", has_text="run").click()
    numbers = [int(text) for text in page.locator(rows).all_inner_texts()]
    assert numbers == list(range(29, -1, -1))
    page.locator("#all-runs thead button", has_text="run").click()
    assert [int(text) for text in page.locator(rows).all_inner_texts()] == list(range(30))


def test_pointing_at_a_run_lights_it_everywhere(large, browser_page):
    page = browser_page(large).page
    point_at(page.locator("svg.slice a.run.best").first)
    lit = page.locator("a.run.on")
    assert set(lit.evaluate_all("all => all.map(one => one.dataset.run)")) == {"16"}
    assert page.locator("svg.parallel a.run.on, svg.curves a.run.on, svg.progress-chart a.run.on").count() == 3
    assert page.locator("#all-runs tr.on th").inner_text() == "16"
    assert "run 16" in page.locator("#tip").inner_text() and page.locator("#tip").is_visible()
    page.mouse.move(2, 400)
    assert page.locator(".on").count() == 0


def test_a_row_lights_its_run_and_a_line_opens_its_page(large, browser_page):
    page = browser_page(large).page
    point_at(page.locator("#all-runs tbody tr").nth(3))
    run = page.locator("#all-runs tbody tr").nth(3).locator("th").inner_text()
    assert page.locator(f'svg.parallel a.run.on[data-run="{run}"]').count() == 1
    assert page.locator('svg.parallel a[data-run="16"]').get_attribute("href") == "16/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(large, browser_page, scheme):
    opened = browser_page(large, width=375, height=812, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 375
    sizes = opened.page.evaluate(
        """() => [...document.querySelectorAll("svg.chart text")].map(one =>
        parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.getBoundingClientRect().width
        / one.ownerSVGElement.viewBox.baseVal.width)"""
    )
    assert min(sizes) > 8.5
    assert opened.faults == []


def test_the_command_is_copied(large, browser_page):
    page = browser_page(large, permissions=["clipboard-read", "clipboard-write"]).page
    page.locator(".code button").first.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("python -m genrec.run ")


def test_no_secret_stands_on_the_page_of_a_sweep_or_of_its_runs(tmp_path: Path) -> None:
    secret, address = "sk-very-secret-123", "http://me:hunter22@host/x"
    words = {"logger.wandb.api_key": secret, "logger.mlflow.tracking_uri": address}
    config = {"logger": {"wandb": {"api_key": secret}, "mlflow": {"tracking_uri": address}}}
    for number, value in enumerate((0.1, 0.2)):
        fake_run(tmp_path / str(number), {**words, "optimizer.lr": value}, value, config=config)
    error = f"{address} refused {secret}"
    fake_run(tmp_path / "2", {**words, "optimizer.lr": 0.3}, state="failed", config=config, error=error)
    fake_sweep(tmp_path, command=["-m", *(f"{key}={value}" for key, value in words.items())], state="killed")
    for page in (write_sweep_page(tmp_path), write_run_page(tmp_path / "1"), write_run_page(tmp_path / "2")):
        text = page.read_text()
        assert "logger.wandb.api_key" in text
        assert secret not in text and "hunter22" not in text


def test_a_broken_file_of_a_run_does_not_take_the_page(tmp_path: Path) -> None:
    for number in range(2):
        fake_run(tmp_path / str(number), {"optimizer.lr": number + 1}, 0.1 + number / 10)
    (tmp_path / "1" / "metrics.json").write_text('{"final": {')
    fake_sweep(tmp_path)
    assert "run 1" in write_sweep_page(tmp_path).read_text()


def test_links_to_runs_lead_there_whatever_their_folders_are_called(tmp_path: Path) -> None:
    for name in ("lr:1e-3#a?b", "lr:2e-3%20 c"):
        (fake_run(tmp_path / name, {"optimizer.lr": name}, 0.1) / "report.html").write_text("")
    fake_sweep(tmp_path)
    links = {link for link in Page(write_sweep_page(tmp_path).read_text()).links if link.endswith("report.html")}
    assert links == {"lr%3A1e-3%23a%3Fb/report.html", "lr%3A2e-3%2520%20c/report.html"}
