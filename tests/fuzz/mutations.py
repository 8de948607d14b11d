"""Sound files made unsound: bytes that are cut, doubled or strange, and values that have no place where they stand."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

_PIECES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b"\n", b"\r\n", b"\r", b",", b"\t", b"::", b"|", b"[{", b"}",
    b"nan", b"9" * 40, b"-1", b"1e999", b"\x1f\x8b", b"A" * 70_000, b"\xc3\x28", "\u2028".encode(), "日本".encode(),
    b"null", b"\\",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\x00", "é", "9" * 50, [], [1], {},
    {"a": 1}, [[1]], "<script>", "../..", -(2**63), 2**63, [None], {"": None},
)  # fmt: skip


def bytes_of(random: Random, content: bytes) -> bytes:
    """Some bytes cut, dropped, flipped, put in or repeated."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 4])):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(6)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            del data[place : place + random.randint(1, 40)]
        elif kind == 2 and place < len(data):
            data[place] ^= random.randint(1, 255)
        elif kind == 3:
            data[place:place] = random.choice(_PIECES)
        elif kind == 4:
            data[place:place] = data[place : place + random.randint(1, 400)]
        else:
            end = random.randrange(len(data) + 1)
            data[place:place], data[end:end] = random.choice(_PIECES), random.choice(_PIECES)
    return bytes(data)


def tree_of(random: Random, value: Any) -> Any:
    """A tree of plain values in which one is odd, gone, doubled, or of another name."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    whole = [value]
    walk(whole)
    node, key = random.choice(places)
    kind = random.randrange(5)
    if kind == 0 and node is not whole:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.insert(key, node[key])
    else:
        node[key] = random.choice(ODD)
    return whole[0] if whole else None


def json_of(random: Random, content: bytes) -> bytes:
    """A JSON or YAML file with one odd value; JSON is YAML too."""
    import yaml

    try:
        value = json.loads(content) if content[:1] in (b"{", b"[") else yaml.safe_load(content)
    except ValueError:  # a file of lines, each an object
        return lines_of(random, content)
    return json.dumps(tree_of(random, value), default=str).encode("utf-8", "surrogatepass")


def lines_of(random: Random, content: bytes) -> bytes:
    """A table of text with lines gone, doubled or moved, or a cell that is odd."""
    lines = content.split(b"\n")
    for _ in range(random.choice([1, 1, 3])):
        place = random.randrange(len(lines))
        kind = random.randrange(5)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(place, lines[random.randrange(len(lines))])
        elif kind == 2:
            lines[place] += random.choice([b",x", b",", b"\t", b'"', b" ", b"::1"])
        else:
            mark = next((mark for mark in (b"::", b"\t", b",") if mark in lines[place]), b",")
            cells = lines[place].split(mark)
            cells[random.randrange(len(cells))] = str(random.choice(ODD)).encode("utf-8", "replace")
            lines[place] = mark.join(cells)
        if not lines:
            return b""
    return b"\n".join(lines)


def frame_of(random: Random, frame: pl.DataFrame) -> pl.DataFrame:
    """A table with a column gone, empty, of another type or name, doubled rows or none."""
    name = random.choice(frame.columns)
    column = frame[name]
    kind = random.randrange(11)
    if kind == 0:
        return frame.drop(name)
    if kind == 1:
        return frame.head(random.choice([0, 0, 1, 2]))
    if kind == 2:
        return frame.with_columns(pl.Series(name, [None] * frame.height, dtype=random.choice([pl.Null, column.dtype])))
    if kind == 3:
        return frame.rename({name: random.choice(["", "x", "é", name.upper(), " " + name])})
    if kind == 4:
        return pl.concat([frame, frame.head(3)])
    if kind == 5:
        kinds = (pl.String, pl.Float64, pl.Int8, pl.Boolean, pl.Date, pl.Categorical, pl.Binary, pl.Float32, pl.UInt64)
        try:
            return frame.with_columns(column.cast(random.choice(kinds), strict=False))
        except pl.exceptions.PolarsError:
            return frame.drop(name)
    if kind == 6:
        return frame.with_columns(pl.Series(name, [[value] for value in column.to_list()]))
    if kind == 7:
        return frame.with_columns(pl.struct(pl.col(name)).alias(name))
    if kind == 8:
        odd = pl.Series(
            name, [random.choice(["", " ", "x", "9" * 30, "nan", "é\n", None]) for _ in range(frame.height)]
        )
        return frame.with_columns(odd.cast(pl.String))
    if kind == 9:
        odd = [random.choice([float("nan"), float("inf"), -1.0, 1e300, 2.5, None]) for _ in range(frame.height)]
        return frame.with_columns(pl.Series(name, odd, dtype=pl.Float64))
    return frame.sample(fraction=1.0, shuffle=True, seed=random.randrange(100))


def parquet_of(random: Random, content: bytes) -> bytes:
    """A Parquet file with another table in it."""
    out = io.BytesIO()
    frame_of(random, pl.read_parquet(io.BytesIO(content))).write_parquet(out)
    return out.getvalue()


def array_of(random: Random, array: np.ndarray) -> np.ndarray:
    """An array of another shape or type, or with odd numbers in it."""
    kind = random.randrange(8) if array.ndim else 3
    if kind == 0:
        return array[:0]
    if kind == 1:
        return array.reshape(-1)[: random.choice([1, 3])]
    if kind == 2:
        return array.astype(random.choice([np.float16, np.int8, np.uint8, np.complex64, "U5", bool]))
    if kind == 3:
        return np.array(random.choice([3, -1, 2.5, "x"]))
    if kind == 4:
        return array[None]
    if kind == 5:
        return (
            np.concatenate([array.reshape(-1), array.reshape(-1)]) if array.ndim == 1 else np.repeat(array, 2, axis=0)
        )
    out = np.array(array, copy=True)
    if out.size and out.dtype.kind in "fiu":
        odd = [np.nan, np.inf, 1e30] if out.dtype.kind == "f" else [-1, 0, 99, np.iinfo(out.dtype).max]
        with np.errstate(all="ignore"):
            out.reshape(-1)[random.randrange(out.size)] = random.choice(odd)
    return out


def npy_of(random: Random, content: bytes) -> bytes:
    """An .npy file with another array in it."""
    out = io.BytesIO()
    np.save(out, array_of(random, np.load(io.BytesIO(content))))
    return out.getvalue()


def npz_of(random: Random, content: bytes) -> bytes:
    """An .npz file in which an array is another, gone, or more."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = random.choice(list(arrays))
    kind = random.randrange(6)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[f"{name}x"] = arrays.pop(name)
    else:
        arrays[name] = array_of(random, arrays[name])
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def checkpoint_of(random: Random, content: bytes) -> bytes:
    """A checkpoint in which a tensor or a value is another, gone, or more."""
    import torch

    state = torch.load(io.BytesIO(content), weights_only=True)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(state)
    node, key = random.choice(places)
    value = node[key]
    kind = random.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif isinstance(value, torch.Tensor) and kind < 4:
        odd = [value[None], value.reshape(-1)[:1], value.to(torch.int64), value.double(), torch.zeros(0)]
        node[key] = random.choice(odd) if kind == 2 else torch.full_like(value, random.choice([-1, 0, 99]))
    else:
        node[key] = random.choice([item for item in ODD if not isinstance(item, float) or item == item])
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


_BY_SUFFIX = {
    ".json": json_of, ".yaml": json_of, ".csv": lines_of, ".tsv": lines_of, ".dat": lines_of, ".data": lines_of,
    ".txt": lines_of, ".item": lines_of, ".jsonl": lines_of, ".parquet": parquet_of, ".npy": npy_of, ".npz": npz_of,
    ".pt": checkpoint_of, ".ckpt": checkpoint_of,
}  # fmt: skip


def file_of(random: Random, path: Path) -> str:
    """Mutates a file in place; says how."""
    content = path.read_bytes()
    if path.suffix == ".gz" and random.random() < 0.6:
        inner = _BY_SUFFIX.get(Path(path.stem).suffix, bytes_of) if random.random() < 0.5 else bytes_of
        path.write_bytes(gzip.compress(inner(random, gzip.decompress(content))))
        return f"{inner.__name__} within gzip"
    mutate = _BY_SUFFIX.get(path.suffix, bytes_of) if random.random() < 0.65 else bytes_of
    path.write_bytes(mutate(random, content))
    return mutate.__name__
