"""A loopback web store: files with versions, ranges, folder pages, and faults to order."""

from __future__ import annotations

import hashlib
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class StoreServer:
    """Serves ``files``. ``failures`` holds status codes of the next answers to GET; ``cut`` (bytes) breaks off the next
    one. ``ranges=False`` serves files as a whole only, ``marks=False`` tells nothing of versions, ``wait`` is seconds
    before any answer, also those that are due (``busiest``: how many waited at a time), ``md5`` is told beside the
    content, ``key`` is a header that must come with every request."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    cut: int | None = None
    ranges: bool = True
    marks: bool = True
    wait: float = 0.0
    md5: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    links: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0

    def gets(self) -> list[str | None]:
        """The Range header of every GET so far."""
        return [wanted for method, _, wanted in self.requests if method == "GET"]

    def page(self, folder: str) -> bytes:
        names = [path.removeprefix(folder) for path in self.files if path.startswith(folder)]
        links = [*(name for name in names if "/" not in name), *self.links]
        return "".join(f'<a href="{name}">{name}</a>' for name in links).encode()


class _Handler(BaseHTTPRequestHandler):
    state: StoreServer

    def do_HEAD(self) -> None:
        with suppress(OSError):  # who asked may have gone
            self._answer(body=False)

    def do_GET(self) -> None:
        with suppress(OSError):
            self._answer(body=True)

    def _answer(self, body: bool) -> None:
        state, path = self.state, self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        state.requests.append((self.command, self.path, wanted))
        state.busy += 1
        state.busiest = max(state.busiest, state.busy)
        begin = time.monotonic()
        while (left := begin + state.wait - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))
        state.busy -= 1
        if state.key is not None and self.headers.get("X-Key") != state.key:
            self.send_error(403)
            return
        if body and state.failures:
            self.send_error(state.failures.pop(0))
            return
        content = state.files.get(path)
        if content is None and path.endswith("/"):
            content = state.page(path)
        if content is None:
            self.send_error(404)
            return
        begin, end = 0, len(content)
        if wanted and state.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(content)) + 1, len(content))
        self.send_response(206 if wanted and state.ranges else 200)
        if state.marks:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:12]}"')
        if path in state.md5:
            self.send_header("Content-MD5", state.md5[path])
        self.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if body:
            piece = content[begin:end]
            if state.cut is not None:
                piece, state.cut = piece[: state.cut], None
            self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[StoreServer]:
    """A server on a port of this machine while the block runs."""
    state = StoreServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def md5_of(content: bytes) -> str:
    """As a store writes it: base64."""
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
