"""Files that somebody else made: a pickle in any of them runs nothing, and whatever is wrong is told in a sentence."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.download import extract_zip
from genrec.data.encoders.file import FileEncoder
from genrec.data.fitted_features import FittedFeatures
from genrec.data.storage import load_folder
from genrec.records import read_run
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.streaming import ResidualCodec, read_chunks
from genrec.trainers.base import create_trainer
from genrec.trainers.checkpoints import CheckpointFolder, load_weights, read_checkpoint


class Planted:
    """Unpickling it makes the file ``ran``."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def object_array() -> np.ndarray:
    array = np.empty((2, 2), dtype=object)
    array[:] = Planted()
    return array


def legacy(path: Path) -> None:
    torch.save({"weight": Planted()}, path, _use_new_zipfile_serialization=False)


def nested(path: Path) -> None:
    torch.save({"format": 1, "model": {"weight": torch.zeros(2)}, "identity": Planted()}, path)


def npz_of_objects(path: Path) -> None:
    names = ("codes", "codebook_sizes", "num_content_levels", "mean", "scale", "directions", "codebook_0", "vectors")
    with open(path, "wb") as stream:
        np.savez(stream, **{name: object_array() for name in names}, allow_pickle=True)


def npy_of_objects(path: Path) -> None:
    with open(path, "wb") as stream:
        np.save(stream, object_array(), allow_pickle=True)


def torch_script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def bare_npz(path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, other=np.zeros(3))


def cut_short(path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:700])


PLANTS: dict[str, Callable[[Path], Any]] = {
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Planted())),
    "a pickle of a table": lambda path: path.write_bytes(pickle.dumps({"model": Planted()})),
    "a checkpoint": lambda path: torch.save({"weight": Planted()}, path),
    "an old checkpoint": legacy,
    "a last checkpoint": nested,
    "a whole module": lambda path: torch.save(nn.Linear(2, 2), path),
    "TorchScript": torch_script,
    "npz of objects": npz_of_objects,
    "npy of objects": npy_of_objects,
    "another npz": bare_npz,
    "a list of tensors": lambda path: torch.save([torch.zeros(2)], path),
    "numbers for names": lambda path: torch.save({1: torch.zeros(2)}, path),
    "another model": lambda path: torch.save({"elsewhere": torch.zeros(3)}, path),
    "no tensors": lambda path: torch.save({"weight": "text", "bias": None}, path),
    "cut short": cut_short,
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "text": lambda path: path.write_text("hello"),
    "JSON": lambda path: path.write_text('{"format": 1, "model": 3}'),
    "deep JSON": lambda path: path.write_text("[" * 200_000),
    "a list": lambda path: path.write_text("[1, 2]"),
    "a folder": lambda path: path.mkdir(),
}


def resume(path: Path) -> None:
    folder = CheckpointFolder(path.parent)
    path.rename(path.parent / "last.ckpt")
    folder.load_last()


def encode(path: Path, dataset: Dataset) -> None:
    FileEncoder(path=str(path)).encode(dataset)


READERS: dict[str, tuple[str, Callable[[Path, Dataset], Any]]] = {
    "best_model.pt": (".pt", lambda path, _: load_weights(path, nn.Linear(2, 2))),
    "load_checkpoint": (".pt", lambda path, _: create_trainer("simple").load_checkpoint(path, nn.Linear(2, 2))),
    "last.ckpt": (".ckpt", lambda path, _: resume(path)),
    "tokenizer=file": (".npz", lambda path, _: SemanticIds.load(path)),
    "codec.npz": (".npz", lambda path, _: ResidualCodec.load(path)),
    "vectors.npy": (".npy", encode),
    "vectors.npz": (".npz", encode),
    "vectors.parquet": (".parquet", encode),
    "streamed.npy": (".npy", lambda path, _: list(read_chunks(path))),
    "streamed.parquet": (".parquet", lambda path, _: list(read_chunks(path))),
    "features.json": (".json", lambda path, _: FittedFeatures.load(path)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("plant", PLANTS)
def test_nothing_runs_and_one_sentence_is_said(
    plant: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cycle_dataset: Dataset
) -> None:
    monkeypatch.chdir(tmp_path)
    suffix, read = READERS[reader]
    path = tmp_path / f"planted{suffix}"
    PLANTS[plant](path)
    with pytest.raises(GenrecError) as refused:
        read(path, cycle_dataset)
    said = str(refused.value)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in said and len(said) < 700 and "weights_only" not in said, said


def test_the_plant_itself_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would show nothing."""
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Planted()}, tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_refused_pickle_is_called_what_it_is(tmp_path: Path) -> None:
    PLANTS["a checkpoint"](tmp_path / "x.pt")
    with pytest.raises(GenrecError, match="holds more than tensors and numbers and could run code"):
        read_checkpoint(tmp_path / "x.pt")


def archives() -> Iterator[Any]:
    def member(name: str, mode: int = 0o100644, content: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
        def write(archive: zipfile.ZipFile) -> None:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)

        return write

    names = ("../out", "a/../../out", "/tmp/out", "..\\out", "C:\\out", "C:/out", "./..", ".", "a/../..")
    yield from (pytest.param(member(name), id=name) for name in names)
    modes = {"link": 0o120777, "device": 0o020666, "block": 0o060666, "pipe": 0o010644, "socket": 0o140777}
    yield from (pytest.param(member("x", mode, b"/etc/passwd"), id=name) for name, mode in modes.items())
    yield pytest.param(lambda archive: None, id="nothing")


@pytest.mark.parametrize("plant", list(archives()))
def test_archives_that_reach_out_write_nothing(plant: Callable[[zipfile.ZipFile], None], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good", "1")
        plant(archive)
        if not len(archive.namelist()) - 1:
            archive.filelist.clear()
            archive.NameToInfo.clear()
    with pytest.raises(GenrecError, match="refused"):
        extract_zip(tmp_path / "x.zip", tmp_path / "inner" / "folder")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["x.zip"]


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(4_000_000))
    monkeypatch.setattr("genrec.data.unpacking._UNSUSPICIOUS", 1_000_000)
    with pytest.raises(GenrecError, match="over 100 times its own size; refused"):
        extract_zip(path, tmp_path / "out")
    content = path.read_bytes()  # and one that says it is small: both the size in front and that of the directory
    path.write_bytes(content.replace((4_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(GenrecError, match="no readable zip"):
        extract_zip(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 100


@pytest.mark.parametrize("flip", range(0, 120, 7))
def test_a_damaged_archive_is_told_in_a_sentence(flip: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", "a,b\n" * 50)
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 0xFF
    path.write_bytes(content)
    try:
        extract_zip(path, tmp_path / "out")
    except GenrecError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["", "[", "3", "null", '"x"', "[" * 100_000, "\x00"])
def test_records_of_others(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(GenrecError):
        read_run(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(GenrecError):
        load_folder(tmp_path)


def test_a_format_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(json.dumps({"format": 1, "dense": 3}))
    with pytest.raises(GenrecError, match="holds no features of a run"):
        FittedFeatures.load(tmp_path / "features.json")
