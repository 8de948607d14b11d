"""Pages of runs in which every text is hostile: all of it is shown as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrec.report.compare import compare
from genrec.report.compare_page import compare_html
from genrec.report.run_page import write_run_page
from genrec.report.sweep_page import write_sweep_page
from tests.report.fake_sweep import fake_run, fake_sweep
from tests.report.whole_runs import make_ranking_run, make_retrieval_run

HOSTILE = [
    "<script>evil()</script>",
    "<img src=x onerror=evil()>",
    "\"><svg onload='evil()'>",
    "'><iframe src=javascript:evil()>",
    "</style></script></title></textarea><script>evil()</script>",
    "--><script>evil()</script><!--",
    "<a href='javascript:evil()'>x</a>",
    "]]><script>evil()</script>",
    "\u2028</script\n><script >evil()//",
]
_KEPT = ("state", "monitor", "direction", "model", "data")  # whose values pages compute with; the last two are below


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    @property
    def dangerous(self) -> list[Any]:
        def ran(attributes: dict[str, str | None]) -> bool:
            called = any(name.startswith("on") for name in attributes)
            return called or any(
                "javascript:" in (attributes.get(name) or "") for name in ("href", "src", "xlink:href")
            )

        active = ("img", "iframe", "object", "embed", "base", "form", "meta-refresh")
        return [(tag, given) for tag, given in self.found if tag in active or ran(given)]

    @property
    def scripts(self) -> int:
        return sum(tag == "script" for tag, _ in self.found)


def poisoned(value: Any, evil: str, key: str = "") -> Any:
    if isinstance(value, dict):
        extra = {evil: evil} if key in ("config", "model", "choices", "logger", "versions") else {}
        return {name: poisoned(item, evil, name) for name, item in value.items()} | extra
    if isinstance(value, list):
        return [poisoned(item, evil, key) for item in value]
    return evil if isinstance(value, str) and key not in _KEPT else value


def poison(folder: Path, evil: str) -> None:
    """Replaces every text in the files of a run."""
    for name in ("run.json", "environment.json", "samples.json"):
        path = folder / name
        if path.exists():
            path.write_text(json.dumps(poisoned(json.loads(path.read_text()), evil)))
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "model": evil, "data": evil, "error": evil}))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(poisoned(config, evil, "config")))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([f"a.{evil}={evil}", evil]))
    (folder / "run.log").write_text(f"{evil}\nERROR {evil}\n")


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize("make", [make_retrieval_run, make_ranking_run])
def test_the_page_of_a_run(make: Callable[..., Path], evil: str, tmp_path: Path) -> None:
    clean = Elements(write_run_page(make(tmp_path / "clean")).read_text())
    folder = make(tmp_path / "run")
    poison(folder, evil)
    text = write_run_page(folder).read_text()
    page = Elements(text)
    assert page.dangerous == [] and page.scripts == clean.scripts
    assert evil.replace("<", "&lt;").partition("&lt;")[2][:12].replace(">", "&gt;").replace("'", "&#x27;") in text


@pytest.mark.parametrize("evil", HOSTILE)
def test_the_page_of_a_failed_run(evil: str, tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run", state="failed", error=evil)
    poison(folder, evil)
    assert Elements(write_run_page(folder).read_text()).dangerous == []


@pytest.mark.parametrize("evil", HOSTILE)
def test_the_page_of_a_sweep(evil: str, tmp_path: Path) -> None:
    counts = []
    for name, text in (("clean", "x"), ("sweep", evil)):
        folder = fake_sweep(tmp_path / name, command=["-m", f"model.{text}={text}"])
        for job in range(4):
            quoted = json.dumps(text, ensure_ascii=False)
            overrides = {"trainer.mode": quoted * (job % 2), f"a.{text}": job, "optimizer.lr": "1e-2"}
            fake_run(folder / str(20 + job), overrides, 0.1 * (job + 1), choices={"model": text}, config={text: text})
        fake_run(folder / "30", {"x": json.dumps(text)}, state="failed", error=text)
        page = Elements(write_sweep_page(folder).read_text())
        assert page.dangerous == []
        counts.append(page.scripts)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("evil", HOSTILE)
def test_the_page_of_a_comparison(evil: str, tmp_path: Path) -> None:
    counts = []
    for name, text in (("clean", "x"), ("evil", evil)):
        folders = [make_retrieval_run(tmp_path / name / str(number), model=f"{text}{number}") for number in range(2)]
        for folder in folders:
            if text == evil:
                poison(folder, evil)
        page = Elements(compare_html(compare([str(folder) for folder in folders])))
        assert page.dangerous == []
        counts.append(page.scripts)
    assert counts[0] == counts[1]
