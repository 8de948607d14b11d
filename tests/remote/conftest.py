"""An empty memory store, a loopback web store, and no pauses between tries."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from genrec.remote import copies
from tests.remote.store_server import StoreServer, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreServer]:
    monkeypatch.setattr(copies, "_FIRST_PAUSE", 0.0)
    with serving() as server:
        yield server


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of an empty folder of the memory file system."""
    import fsspec

    memory = fsspec.filesystem("memory")
    name = f"/bucket-{uuid.uuid4().hex[:8]}"
    memory.mkdir(name)
    yield f"memory:/{name}"
    memory.rm(name, recursive=True)
