"""Fingerprints, atomic files and the cache of stages."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.artifacts import (
    Cache,
    JsonText,
    atomic_path,
    file_fingerprint,
    fingerprint,
    is_locked,
    lock,
    read_json,
    write_json,
    write_text,
)
from genrec.contracts import GenrecError

VALUE = {"b": [1, 2.5, None, True], "a": ("x", np.arange(3)), "c": np.float32(0.5)}


def test_fingerprint_is_equal_in_another_process() -> None:
    """Fault: cache keys from Python's salted hash differ from process to process."""
    code = (
        "import numpy as np; from genrec.artifacts import fingerprint;"
        "print(fingerprint({'c': np.float32(0.5), 'a': ['x', np.arange(3)], 'b': [1, 2.5, None, True]}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == fingerprint(VALUE)
    assert len(fingerprint(VALUE)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        (1, 1.0),
        (1, True),
        (1, "1"),
        (None, "None"),
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros((2, 2)), np.zeros(4)),
        ({"a": None}, {}),
    ],
)
def test_different_values_have_different_fingerprints(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_memory_layout_does_not_matter_but_unknown_types_are_refused() -> None:
    table = np.arange(6).reshape(2, 3)
    assert fingerprint(table.T) == fingerprint(np.ascontiguousarray(table.T))
    with pytest.raises(TypeError, match="cannot hash a object"):
        fingerprint(object())


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [found.name for found in path.parent.iterdir()] == ["file.txt"]


def test_nothing_shows_at_the_path_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.npy"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".npy" and temporary.parent == path.parent
        temporary.write_bytes(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_json_comes_back_and_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}


def test_missing_and_broken_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(GenrecError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


def test_cache_does_the_work_once(tmp_path: Path) -> None:
    for expected in (False, True):
        with Cache(tmp_path).entry("stage", "key") as (folder, ready):
            assert ready is expected
            if not ready:
                write_text(folder / "result", "42")
    with Cache(tmp_path).entry("stage", "other") as (_, ready):
        assert not ready
    assert (folder / "result").read_text() == "42"


def test_work_that_failed_is_not_taken_for_done(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Cache(tmp_path).entry("stage", "key"):
        raise RuntimeError
    with Cache(tmp_path).entry("stage", "key") as (_, ready):
        assert not ready


def test_two_at_once_do_the_work_once(tmp_path: Path) -> None:
    done: list[int] = []

    def work() -> None:
        with Cache(tmp_path).entry("stage", "key") as (_, ready):
            if not ready:
                time.sleep(0.1)
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1]


def test_the_fingerprint_of_a_file_follows_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    assert file_fingerprint(one) == file_fingerprint(other) == "ba7816bf8f01cfea"  # SHA-256 of "abc"
    other.write_bytes(b"abd")
    assert file_fingerprint(one) != file_fingerprint(other)
    assert file_fingerprint(tmp_path / "none") == file_fingerprint(tmp_path) == ""


def test_asking_for_a_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_locked(path)  # there is none
    with open(path, "w") as asks:
        fcntl.flock(asks, fcntl.LOCK_SH)
        assert not is_locked(path)  # two who ask do not see each other
    with open(path, "w") as holder, open(path, "w") as second:
        assert lock(holder)
        assert is_locked(path) and not lock(second)
    assert not is_locked(path)


def test_who_asks_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with open(path, "w") as asks, open(path, "w") as holder:
        fcntl.flock(asks, fcntl.LOCK_SH)
        threading.Timer(0.03, lambda: fcntl.flock(asks, fcntl.LOCK_UN)).start()
        assert lock(holder)


@pytest.mark.parametrize("values", [["it's", 'a "b"', "back\\slash", "naïve\n"], ["it's"], [1, 2.5, None], [None], []])
def test_json_in_pieces_has_the_fingerprint_of_the_whole(values: list[Any]) -> None:
    """Fault: a long table hashed piece by piece gets another key than before, and every cache is made anew."""
    text = json.dumps(values)
    for cut in range(len(text) + 1):
        assert fingerprint({"a": JsonText([text[:cut], text[cut:]])}) == fingerprint({"a": text})


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3).T, np.array(["ab", "ü"]), np.array([], "<U0"), np.zeros((0, 3)), np.float64(2.0),
     np.array(["2020-01-01"], "datetime64[D]")],
)  # fmt: skip
def test_arrays_are_hashed_by_their_bytes(array: Any) -> None:
    array = np.asarray(array)
    expected = hashlib.sha256(f"array:{array.dtype.str}:{array.shape}:".encode() + array.tobytes())
    assert fingerprint(array) == expected.hexdigest()[:16]
