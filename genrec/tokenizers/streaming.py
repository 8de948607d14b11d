"""Codes of any number of item vectors in one pass over a file, with memory for one chunk of them.

Shapes: N items of the file, D width, n items of a chunk, C levels, K codes per level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.artifacts import atomic_path, reason_of
from genrec.contracts import GenrecError
from genrec.nn.kmeans import nearest_codes
from genrec.tokenizers.features import TextTransform

Encode = Callable[[np.ndarray], np.ndarray]
CHUNK = 4096


@dataclass(frozen=True)
class ResidualCodec:
    """Nearest codes level by level: ``codebooks`` C x (K, P) over what ``transform`` makes of an item vector (D,).

    This is what a tokenizer knows that holds for any item. A tokenizer that also looks at co-occurrence has no such
    codec, because of a new item there is none. Limits on the sizes of clusters (``balance``) are those of a catalogue,
    and a new item goes to the nearest whatever its size: ``codec_agreement`` in the report of such a tokenizer is the
    share of its own items that the codec codes as it did.
    """

    transform: TextTransform
    codebooks: Sequence[np.ndarray]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, C) int64 codes of ``vectors`` (n, D)."""
        if vectors.shape[1] != len(self.transform.mean):
            raise GenrecError(
                f"The codec was made from vectors of width {len(self.transform.mean)}, these have {vectors.shape[1]}. "
                "Encode the items as the tokenizer's own items were encoded."
            )
        residual = torch.from_numpy(self.transform(vectors))
        codes = []
        for codebook in (torch.from_numpy(codebook).to(residual.dtype) for codebook in self.codebooks):
            codes.append(nearest_codes(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=1).numpy()

    def _checked(self) -> ResidualCodec:
        """The codec, or a ValueError where its arrays do not fit each other."""
        width, narrow = self.transform.directions.shape
        of_vectors, of_codes = (self.transform.mean, self.transform.scale), self.codebooks
        fitting = all(array.shape == (width,) for array in of_vectors) and all(
            array.ndim == 2 and len(array) and array.shape[1] == narrow for array in of_codes
        )
        arrays = [*of_vectors, self.transform.directions, *of_codes]
        if not (of_codes and fitting and all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays)):
            raise ValueError("its arrays do not fit each other, or hold no finite numbers")
        return self

    def save(self, path: Path) -> None:
        """Writes an npz (no pickled objects) atomically."""
        parts: dict[str, Any] = {f"codebook_{level}": codebook for level, codebook in enumerate(self.codebooks)}
        parts |= {name: getattr(self.transform, name) for name in ("mean", "scale", "directions")}
        with atomic_path(Path(path)) as temporary:
            np.savez(temporary, **parts)

    @classmethod
    def load(cls, path: Path) -> ResidualCodec:
        if not Path(path).exists():
            raise GenrecError(f"No codec at {path}. Give the codec.npz that ResidualCodec.save wrote.")
        try:
            with np.load(path, allow_pickle=False) as archive:
                levels = sum(name.startswith("codebook_") for name in archive.files)
                transform = TextTransform(archive["mean"], archive["scale"], archive["directions"])
                return cls(transform, [archive[f"codebook_{level}"] for level in range(levels)])._checked()
        except Exception as error:  # of zipfile, of NumPy, of whatever else a file may be instead
            raise GenrecError(
                f"{path} is no codec ({reason_of(error)}). Give the codec.npz that a run wrote."
            ) from None


def encode_file(encode: Encode, vectors: Path, output: Path, *, chunk: int = CHUNK, column: str | None = None) -> int:
    """Writes the codes (N, C) int32 of the item vectors in the file ``vectors`` to ``output`` (.npy); returns N.

    ``encode`` maps (n, D) to (n, C): a ``ResidualCodec``, or an RQ-VAE through ``encode_with``. ``vectors`` is a .npy
    file (N, D) or a Parquet file with a list or array ``column``. ``output`` appears whole or not at all.
    """
    with atomic_path(Path(output)) as temporary, open(temporary, "wb") as stream:
        written = width = 0
        for part in read_chunks(Path(vectors), chunk=chunk, column=column):
            codes = np.ascontiguousarray(encode(part), dtype="<i4")
            if not written:
                width = codes.shape[1]
                _write_header(stream, 0, width)
            stream.write(codes.tobytes())
            written += len(codes)
        if not written:
            raise GenrecError(f"{vectors} holds no vectors. Give a file with one row per item.")
        stream.seek(0)
        _write_header(stream, written, width)  # numpy pads headers, so that the number of rows may grow in place
    return written


def encode_with(model: torch.nn.Module) -> Encode:
    """The ``encode`` of a trained RQ-VAE as a map of arrays."""
    model = model.eval()

    def encode(vectors: np.ndarray) -> np.ndarray:
        device = next(model.parameters()).device
        codes = model.encode(torch.from_numpy(vectors).to(device, torch.float32))  # pyright: ignore[reportCallIssue]
        return codes.cpu().numpy()

    return encode


def read_chunks(path: Path, *, chunk: int = CHUNK, column: str | None = None) -> Iterator[np.ndarray]:
    """The rows of a vector file as (n, D) float32, ``chunk`` at a time; read, not mapped, so none of it stays."""
    if path.suffix not in (".npy", ".parquet"):
        raise GenrecError(f"{path} must end in .npy or .parquet; other formats cannot be read piece by piece.")
    parts = _read_npy(path, chunk) if path.suffix == ".npy" else _read_parquet(path, chunk, column)
    try:
        yield from parts
    except GenrecError:
        raise
    except Exception as error:  # of NumPy, of polars, of whatever else a file may be instead
        raise GenrecError(
            f"{path} could not be read as item vectors ({reason_of(error)}). Encode the items again."
        ) from None


def _read_npy(path: Path, chunk: int) -> Iterator[np.ndarray]:
    _check_exists(path)
    with open(path, "rb") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_header(stream)
        if len(shape) != 2 or min(shape) < 0 or by_columns or dtype.kind not in "fiu":
            raise GenrecError(
                f"{path} must be a table of numbers, items x dimensions, row after row; found shape {shape}, {dtype}."
            )
        for begin in range(0, shape[0], chunk):
            rows = min(chunk, shape[0] - begin)
            part = np.fromfile(stream, dtype, rows * shape[1])
            if len(part) != rows * shape[1]:
                raise GenrecError(f"{path} ends after {begin + len(part) // shape[1]} of {shape[0]} rows.")
            yield _finite(part.reshape(rows, shape[1]).astype(np.float32), path, begin)


def _read_parquet(path: Path, chunk: int, column: str | None) -> Iterator[np.ndarray]:
    import polars as pl

    _check_exists(path)
    table = pl.scan_parquet(path)
    lists = [name for name, kind in table.collect_schema().items() if kind.is_nested()]
    if column is None and len(lists) != 1:
        raise GenrecError(f"{path} must hold one list column of vectors, found {', '.join(lists) or 'none'}. Name one.")
    name = column or lists[0]
    begin, width = 0, 0
    for batch in table.select(name).collect_batches(chunk_size=chunk):
        values = batch[name]
        if isinstance(values.dtype, pl.List):
            width = width or int(values.list.len()[0] or 0)
            values = values.cast(pl.Array(pl.Float32, width))  # an error where one is longer or shorter
        yield _finite(values.to_numpy().astype(np.float32), path, begin)
        begin += len(batch)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise GenrecError(f"{path} does not exist. Give the file of item vectors.")


def _finite(part: np.ndarray, path: Path, begin: int) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
    if len(bad):
        raise GenrecError(f"{path}: row {begin + bad[0]} holds NaN or infinity. Encode the items again.")
    return part


def _write_header(stream: object, rows: int, width: int) -> None:
    header = {"descr": "<i4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(stream, header)  # pyright: ignore[reportArgumentType]
