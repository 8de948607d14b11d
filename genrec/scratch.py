"""Folders for unfinished work that disappear also where their maker was killed: the next who makes one removes them.

A maker holds the lock of the file ``owner`` in its folder for as long as it lives; the system gives it back however it
ends. Locks may not reach other machines, so the file also says which start of which machine it was.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

OWNER, BESIDE = "owner", "beside"
_NAME = re.compile(r"(\..+\.|genrec[-_].*)[a-z0-9_]{8}", re.DOTALL)
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux


class Scratch:
    """A new folder in ``parent`` (None: where the system keeps such), named ``prefix`` and eight signs.

    Making it removes folders there of this user whose makers, on this machine, have died.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        place = Path(tempfile.gettempdir()) if parent is None else parent
        remove_remains(place)
        self.path = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
        try:
            self._owner = open(self.path / OWNER, "w", encoding="utf-8")  # noqa: SIM115 (its lock is held)
            with suppress(OSError):  # where there are no locks, what is left stays
                fcntl.flock(self._owner, fcntl.LOCK_EX)
                self._owner.write(_machine())
                self._owner.flush()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def goes_with(self, unfinished: Path) -> None:
        """Has a file beside the folder removed together with it."""
        if unfinished.parent == self.path.parent:
            (self.path / BESIDE).write_text(unfinished.name, encoding="utf-8")

    def keep(self) -> None:
        """Leaves the folder, with what else is in it, for somebody to read."""
        (self.path / OWNER).unlink(missing_ok=True)
        self._owner.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._owner.close()


def remove_remains(parent: Path) -> None:
    """Removes folders of ``Scratch`` in ``parent`` that a process of this user and this machine has left."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left(Path(entry.path))


def _remove_if_left(folder: Path) -> None:
    if folder.stat().st_uid != os.getuid():
        return
    with open(folder / OWNER, "r+", encoding="utf-8") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the maker lives
        if owner.read() != _machine():  # of another machine, or only being made
            return
        with suppress(FileNotFoundError):
            name = (folder / BESIDE).read_text(encoding="utf-8")
            if name.startswith(".") and name == Path(name).name:
                (folder.parent / name).unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    """This start of this machine; where the system does not tell, the name of the machine."""
    try:
        return _BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return platform.node()
