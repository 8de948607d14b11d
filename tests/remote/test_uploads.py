"""Files written to addresses appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from genrec.contracts import GenrecError
from genrec.remote.uploads import written

MEMORY = fsspec.filesystem("memory")


def there(url: str) -> bytes | None:
    path = url.removeprefix("memory:/")
    return MEMORY.cat_file(path) if MEMORY.exists(path) else None


def test_written_to_an_address_and_to_a_path(bucket: str, tmp_path: Path) -> None:
    for place in (f"{bucket}/deep/x.csv", str(tmp_path / "x.csv"), f"file://{tmp_path}/y.csv"):
        with written(place) as temporary:
            temporary.write_text("whole")
            assert there(f"{bucket}/deep/x.csv") is None or place != f"{bucket}/deep/x.csv"
    assert there(f"{bucket}/deep/x.csv") == b"whole"
    assert (tmp_path / "x.csv").read_text() == (tmp_path / "y.csv").read_text() == "whole"


def test_nothing_is_written_by_a_block_that_fails(bucket: str) -> None:
    with pytest.raises(RuntimeError), written(f"{bucket}/x.csv") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert there(f"{bucket}/x.csv") is None


def test_web_addresses_are_only_read() -> None:
    with pytest.raises(GenrecError, match="only read"), written("https://host/x.csv"):
        pass
