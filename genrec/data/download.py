"""Files from the web: resumed where they stopped, checked, shown with progress, and in place whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import shutil
import stat
import struct
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from genrec.artifacts import exclusive, write_text
from genrec.contracts import GenrecError
from genrec.data.unpacking import check_unpacked
from genrec.remote.progress import progress_bar

logger = logging.getLogger("genrec.data")

_CHUNK = 1 << 18
_USER_AGENT = "genrec (research data download)"


def missing_files(path: Path, looked_for: str, *, download: bool) -> GenrecError:
    """The error for a data set that is not where it was looked for; ``download`` says that genrec can fetch it."""
    where = "is not there" if not path.exists() else "holds none of it"
    ways = "Give the file or its folder: data.path=<path>."
    if download:
        ways = (
            "Point data_root (or the environment variable GENREC_DATA) at the folder that holds your data sets, or "
            "give this one's folder with data.path=<folder>, or let genrec fetch it with data.source.download=true."
        )
    return GenrecError(f"Looked for {looked_for} in {path}, which {where}. {ways}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    attempts: int = 3,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Fetches ``url`` to ``path`` unless it is there; a partial download is continued by HTTP Range.

    ``sha256`` is verified when given (of a file already there as well); otherwise the hash found on the first download
    is written beside the file as ``<name>.sha256``. After ``attempts`` broken connections what arrived is kept for the
    next call, and a GenrecError says how to place the file by hand.
    """
    path = Path(path)
    if not url.startswith(("http://", "https://")):
        raise GenrecError(f"{url} is no http or https address; check base_url.")
    with exclusive(path.with_name(f".{path.name}.lock")):
        if path.exists():
            _verify(path, sha256, url)
            return path
        part = path.with_name(path.name + ".part")
        _fetch_all(url, part, path, attempts, timeout, progress)
        found = _verify(part, sha256, url)
        os.replace(part, path)
        _origin(part).unlink(missing_ok=True)
        write_text(path.with_name(path.name + ".sha256"), f"{found}  {path.name}\n")
    logger.info("downloaded %s (%d bytes, sha256 %s)", path, path.stat().st_size, found)
    return path


def _fetch_all(url: str, part: Path, path: Path, attempts: int, timeout: float, progress: bool) -> None:
    for attempt in range(attempts):
        try:
            if _fetch(url, part, timeout, progress):
                return
            problem = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise GenrecError(
                    f"{url} answered {error.code} {error.reason}. The file may have moved: set data.source.base_url to "
                    f"where it is now, or fetch it by hand and put it at {path}."
                ) from None
            problem = f"the server answered {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", None) or error or type(error).__name__)
        if attempt + 1 < attempts:
            logger.warning("%s: %s; trying again", url, problem)
            time.sleep(min(0.2 * 2**attempt, 5.0))
    held = part.stat().st_size if part.exists() else 0
    kept = f" {held:,} bytes are kept and the next run continues there." if held else ""
    raise GenrecError(
        f"Could not fetch {url}: {problem}.{kept} "
        f"Without a connection, fetch it on another machine and put it at {path}."
    )


def _fetch(url: str, part: Path, timeout: float, progress: bool) -> bool:
    """One connection; True when the file is complete."""
    request = urllib.request.Request(url, headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"})
    begin, validator = _resume_point(part, url)
    if begin:
        request.add_header("Range", f"bytes={begin}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file now is: begin again
            part.unlink(missing_ok=True)
            return False
        raise
    with response:
        if response.status != 206:
            begin = 0
        total = _total(response, begin)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        write_text(
            _origin(part), json.dumps({"url": url, "validator": "" if validator.startswith("W/") else validator})
        )
        with open(part, "r+b" if begin else "wb") as stream, progress_bar(part.stem, total, begin, progress) as advance:
            stream.seek(begin)
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                advance(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    return total is None or part.stat().st_size == total


def _resume_point(part: Path, url: str) -> tuple[int, str]:
    """Bytes held and the server's mark of the version they belong to; 0 where they cannot safely be continued."""
    try:
        origin = json.loads(_origin(part).read_text(encoding="utf-8"))
        if origin["url"] == url and origin["validator"]:
            return part.stat().st_size, origin["validator"]
    except (OSError, ValueError, KeyError):
        pass
    return 0, ""


def _total(response: Any, begin: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else begin + int(length)


def _origin(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _verify(path: Path, expected: str | None, url: str) -> str:
    if expected is None:
        return sha256_of(path) if path.suffix == ".part" else ""
    found = sha256_of(path)
    if found == expected.lower():
        return found
    if path.suffix == ".part":
        path.unlink()
        _origin(path).unlink(missing_ok=True)
        raise GenrecError(
            f"{url} has sha256 {found}, but {expected} was expected. It was not kept; check URL and sha256."
        )
    raise GenrecError(f"{path} has sha256 {found}, but {expected} was expected. Remove it to fetch it again.")


def extract_zip(archive: Path, folder: Path) -> list[Path]:
    """Unpacks an archive into ``folder``, its single top folder left out; returns the files.

    Members that would leave the folder (absolute, ``..``), links and devices, and archives that grow beyond 16 GiB or
    more than a hundredfold are refused before anything is written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            targets = _safe_targets(members, archive)
            folder.mkdir(parents=True, exist_ok=True)
            written = []
            for member, target in zip(members, targets, strict=True):
                destination = folder.joinpath(*target.parts)
                destination.parent.mkdir(parents=True, exist_ok=True)
                _unpack(opened, member, destination)
                written.append(destination)
            return written
    except GenrecError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # a disk that is full, say; this one is a place before the file's beginning
            raise
        raise GenrecError(
            f"{archive} is no readable zip archive ({error.strerror}). Remove it to fetch it again."
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise GenrecError(f"{archive} is no readable zip archive ({error}). Remove it to fetch it again.") from None


def _safe_targets(members: list[zipfile.ZipInfo], archive: Path) -> list[PurePosixPath]:
    check_unpacked(archive, sum(member.file_size for member in members))  # and no member gives more than it says
    if not members:
        raise GenrecError(f"{archive} holds no files; refused.")
    paths = [PurePosixPath(member.filename) for member in members]
    for member, path in zip(members, paths, strict=True):
        unnamed = not path.parts or path.is_absolute() or ".." in path.parts
        outside = unnamed or "\\" in member.filename or ":" in path.parts[0]
        if outside or stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise GenrecError(
                f"{archive} holds {member.filename!r}, which would be written outside its folder; refused."
            )
    shared = {path.parts[0] for path in paths}
    strip = len(shared) == 1 and all(len(path.parts) > 1 for path in paths)
    return [PurePosixPath(*path.parts[1:]) if strip else path for path in paths]


def _unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo, destination: Path) -> None:
    handle, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    try:
        with opened.open(member) as source, os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        os.chmod(name, 0o644)
        os.replace(name, destination)
    finally:
        Path(name).unlink(missing_ok=True)
