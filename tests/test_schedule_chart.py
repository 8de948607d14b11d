from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from genrec import schedule_chart
from genrec.config import conf_dir
from genrec.schedulers import Linear, Plateau, Schedule

SVG = "{http://www.w3.org/2000/svg}"


def test_every_option_of_the_group_has_a_panel() -> None:
    options = {path.stem for path in (conf_dir() / "scheduler").glob("*.yaml")}
    panels = {panel.get("id") for panel in ElementTree.fromstring(schedule_chart.draw()).iter(f"{SVG}g")}
    assert panels == options
    for kind in schedule_chart.KINDS:
        text = (conf_dir() / "scheduler" / f"{schedule_chart.short_name(kind)}.yaml").read_text()
        assert f"_target_: genrec.schedulers.{kind.__name__}\n" in text


def test_a_panel_shows_the_curve_the_warm_up_and_the_minimum() -> None:
    """Axes are 190 by 110 and the linear panel is the second of the first row: it begins at 36 + 190 + 34, 52."""
    root = ElementTree.fromstring(schedule_chart.draw(total_steps=1000, warmup_steps=100, min_lr_ratio=0.2))
    [panel] = [item for item in root.iter(f"{SVG}g") if item.get("id") == "linear"]
    points = [
        tuple(map(float, pair.split(","))) for pair in str(panel.findall(f"{SVG}polyline")[0].get("points")).split()
    ]
    assert points[0] == pytest.approx((260, 162 - 110 / 100), abs=0.06)  # the first of 100 steps of warm-up
    assert points[20] == pytest.approx((260 + 19, 52), abs=0.06)  # warm at step 100
    assert points[110] == pytest.approx((260 + 190 * 0.55, 162 - 110 * 0.6), abs=0.06)  # half way down to 0.2
    shaded = panel.findall(f"{SVG}rect")[0]
    assert float(str(shaded.get("width"))) == 19
    assert float(str(panel.findall(f"{SVG}line")[0].get("y1"))) == pytest.approx(162 - 22)


@pytest.mark.parametrize("kind", schedule_chart.KINDS)
def test_curves_are_the_schedules_own(kind: Any) -> None:
    schedule: Schedule = kind(warmup_steps=10)
    points = schedule_chart.curve(kind(warmup_steps=10), 200)
    until = 40 if kind is Plateau else 200  # the metric stops improving later
    assert [y for _, y in points[:until]] == [schedule.factor(step, 200) for step in range(until)]


def test_a_plateau_is_seen_to_fall() -> None:
    values = [y for _, y in schedule_chart.curve(Plateau(), 1000)]
    assert values[0] == 1.0 and sorted(set(values), reverse=True)[:2] == [1.0, 0.5]


def test_the_picture_in_the_documentation_is_what_make_schedules_draws(repository: Path) -> None:
    assert (repository / "docs" / "schedules.svg").read_text(encoding="utf-8") == schedule_chart.draw()


def test_the_command_writes_a_file_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "curves.svg"
    assert schedule_chart.main(["--output", str(path), "--total-steps", "50", "--warmup-steps", "0"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text() == schedule_chart.draw(total_steps=50, warmup_steps=0)


@pytest.mark.parametrize("words", [["--total-steps", "0"], ["--min-lr-ratio", "2"]])
def test_wrong_values_are_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        schedule_chart.main([*words, "--output", str(tmp_path / "x.svg")])
    assert ended.value.code == 2 and re.search("total-steps|min_lr_ratio", capsys.readouterr().err)
    assert not (tmp_path / "x.svg").exists()


def test_make_schedules_runs_this_module(repository: Path) -> None:
    assert shutil.which("make") is not None
    command = ["make", "-n", "-C", str(repository), "-o", ".venv/.installed", "schedules"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "-m genrec.schedule_chart --output docs/schedules.svg" in done.stdout


def test_linear_is_drawn_to_its_end() -> None:
    assert schedule_chart.curve(Linear(), 200)[-1] == (1.0, pytest.approx(1 / 200))
