"""Real data where it is present, and a loopback server with Range support for downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture
def real(data_root: Path) -> Callable[[str], Path]:
    """The folder of a real data set by name; the test is skipped where it is not there."""

    def folder(name: str) -> Path:
        if not (data_root / name).is_dir():
            pytest.skip(f"{data_root / name} does not exist")
        return data_root / name

    return folder


@dataclass
class FileServer:
    """Serves ``files``; the first ``broken`` answers stop after ``cut`` bytes; ``requests``: (path, Range header)."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    broken: int = 0
    cut: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if wanted and self.headers.get("If-Range") != state.etag:
                begin = 0
            if begin and begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("ETag", state.etag)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            body = content[begin:]
            if state.broken:
                state.broken -= 1
                body = body[: state.cut]
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()
