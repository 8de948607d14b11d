"""Cards of test users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec.artifacts import write_json
from genrec.records import read_run
from genrec.report.run_samples import samples_section
from tests.report.page_reader import PageReader
from tests.report.run_folders import make_run


def user(number: int, **facts: Any) -> dict[str, Any]:
    history = [{"item_id": item, "title": f"Title {item}"} for item in range(9)]
    recommended = [
        {"item_id": 70, "title": "", "score": -1.25, "hit": False},
        {"item_id": 71, "title": "B", "hit": True},
    ]
    return {"user_id": number, "history": history, "targets": history[:1], "recommended": recommended, **facts}


def test_a_card_tells_the_end_of_the_history_and_the_list(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder / "samples.json", [user(5, history_length=31)])
    section = samples_section(read_run(folder))
    assert section is not None
    text = PageReader(section.body).text
    history = "Title 3 Title 4 Title 5 Title 6 Title 7 Title 8"
    assert text == f"User 5 hit at 2 History, 31 items {history} Held out Title 0 Recommended 1 item 70 -1.25 2 B"
    assert "for 1 of 1 something held out" in section.note


def test_more_than_six_are_folded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder / "samples.json", [user(number) for number in range(8)])
    section = samples_section(read_run(folder))
    assert section is not None
    shown, _, folded = section.body.partition("<details")
    assert (shown.count('class="card"'), folded.count('class="card"')) == (6, 2)
