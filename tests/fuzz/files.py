"""Files of data and artifacts, each read by what reads it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from genrec.data.dataset import Dataset
from genrec.data.sequences import POSITIONS, USERS, WINDOWS
from genrec.data.sources.folder import FolderSource
from genrec.data.sources.table import TableSource
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser
from genrec.data.table import TableDataset
from genrec.data.tables import read_table
from tests.fuzz.cases import Area, Case
from tests.fuzz.mutations import file_of, frame_of

_ROWS = 60
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz", ".parquet.gz", ".inter", ".txt", ".json")


def frame() -> pl.DataFrame:
    """Interactions and rows at once."""
    rows = range(_ROWS)
    return pl.DataFrame(
        {
            "user_id": [f"u{row % 7}" for row in rows],
            "item_id": [row * 7 % 11 for row in rows],
            "timestamp": [1_600_000_000 + row * 50 for row in rows],
            "rating": [row % 5 + 0.5 for row in rows],
            "click": [row % 3 % 2 for row in rows],
            "title": [f'A "quoted", thing {row}' for row in rows],
        }
    )


def write(table: pl.DataFrame, path: Path) -> None:
    """Writes a table in the format of a file's name."""
    out = io.BytesIO()
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        table.write_parquet(out)
    elif suffix in (".jsonl", ".json"):
        kept = [name for name in table.columns if table.schema[name] != pl.Binary]
        table.select(_written(table[n]) if table.schema[n].is_temporal() else table[n] for n in kept).write_ndjson(out)
    else:
        separator = "," if suffix == ".csv" else "\t"
        table.select(_written(table[name]) for name in table.columns if _flat(table, name)).write_csv(
            out, separator=separator
        )
    content = out.getvalue()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


_ODD_CELLS = (
    "", " ", "NA", "null", "None", "nan", "NaN", "inf", "-inf", "1e400", "1e-400", "9" * 40, "-" + "9" * 40, "0x10",
    "1_000", "1.0",
    "01", "-0", "+1", "1,5", "½", "٣", "true", "2020-01-01", "2020-13-45", "2020-01-01T00:00:00Z", "12:30", "1970",
    "\x00", "\ufeff",
    "\u2028", "a\u0301", "á", "\U0001f600", '"', '""', "'", "\\", "x" * 5000, "=1+1", "<b>", "a|b|c", "[1, 2]", "{}",
    "9223372036854775808",
    "18446744073709551616", "1e18", "253402300800", "-62135596801", "99999999999999", "0.1", "1e3",
)  # fmt: skip


def odd_text(random: Random, mark: str) -> bytes:
    """A table as people export them: a few odd cells, columns or rows, mixed line ends, perhaps a byte order mark."""
    names = ["user_id", "item_id", "timestamp", "rating", "click", "title"]
    columns = random.choice(
        [names, names, names[:3], names[:2], [*names, "title"], [*names, ""], names[::-1], names[1:]]
    )
    odd = random.sample(_ODD_CELLS, random.choice([1, 2, 4]))
    share = random.choice([0.01, 0.05, 0.3, 1.0])
    where = random.choice([*columns, "any"])
    plain = {"user_id": lambda row: f"u{row % 7}", "timestamp": lambda row: str(1_600_000_000 + row * 50)}
    ends = random.choice([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"], ["\n", "\n\n"], ["\n", "\r", "\r\n"]])
    text = random.choice(["", "", "", "\ufeff", "\ufeff\ufeff", "\n", "# a note\n", "sep=,\n"])
    spelt = random.choice([str, str, str, str.upper, lambda name: f" {name} ", lambda name: f'"{name}"'])
    text += mark.join(map(spelt, columns)) + "\n"
    for row in range(random.choice([0, 1, 3, 60])):
        cells = [plain.get(name, lambda row: str(row * 7 % 11))(row) for name in columns]
        for place, name in enumerate(columns):
            if where in (name, "any") and random.random() < share:
                cell = random.choice(odd)
                cells[place] = f'"{cell}"' if mark in cell and random.random() < 0.8 else cell
        if random.random() < 0.02:
            cells = random.choice([cells[:-1], [*cells, "x"], [], [""] * len(cells), columns])
        text += mark.join(cells) + random.choice(ends)
    return text.encode(random.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]), "replace")


def _written(column: pl.Series) -> pl.Series:
    """A column as text; one of dates that polars dies of as numbers."""
    try:
        return column.cast(pl.String, strict=False)
    except pl.exceptions.PanicException:
        return column.to_physical().cast(pl.String)


def _flat(table: pl.DataFrame, name: str) -> bool:
    return not table.schema[name].is_nested() and table.schema[name] != pl.Binary


def whole(dataset: Dataset) -> None:
    """Asks a data set for all it can tell of itself."""
    dataset.describe()
    _ = dataset.fingerprint, dataset.titles, dataset.has_text, dataset.spec, dataset.log.frame()
    dataset.view("matrix")


def read(random: Random, path: Path) -> Callable[[], object]:
    """Something that reads a table of interactions or rows."""
    delimiter = random.choice([None, None, None, ",", "::", ";", "\t"])
    encoding = random.choice(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16", "ascii", "nope"])
    header = random.choice([None, None, None, ["user_id", "item_id"], ["user_id", "item_id", "timestamp"]])
    kind = random.randrange(5)
    if kind == 4:
        return _large(random, path, header, delimiter, encoding)
    if kind == 0:
        return lambda: read_table(path, header=header, delimiter=delimiter, encoding=encoding)
    if kind == 1:
        source = TableSource(path=str(path), columns=header, delimiter=delimiter, chunk_rows=random.choice([7, 1000]))
        split = random.choice([None, "timestamp"])
        features: Any = random.choice([None, {"user_id": "sparse", "rating": "dense"}, {"title": "drop"}])
        return lambda: _rows(source, split, features)
    split = random.choice([LeaveOneOut(), RatioPerUser(), GlobalTime()])
    source = FolderSource(
        path=str(path if kind == 2 else path.parent),
        columns=header,
        min_rating=random.choice([None, None, 2.0]),
        min_user_interactions=random.choice([1, 1, 3]),
        unknown_items=random.choice(["keep", "drop", "error"]),
        unused_items=random.choice(["keep", "drop"]),
        text_columns=random.choice([None, None, ["title"]]) if kind == 3 else None,
        delimiter=delimiter,
    )
    return lambda: whole(Dataset(source, split, item_relations=random.choice([None, {"title": " "}])))


def _large(
    random: Random, path: Path, header: list[str] | None, delimiter: str | None, encoding: str
) -> Callable[[], object]:
    """A log of any size, prepared on disk; of the file, its folder or a pattern."""
    from genrec.data.large.dataset import LargeDataset
    from genrec.data.large.source import LargeSource

    source = LargeSource(
        path=str(random.choice([path, path, path.parent, path.parent / "inter*"])),
        cache_dir=str(path.parent / "cache"),
        partition_rows=random.choice([7, 1000]),
        columns=header,
        min_rating=random.choice([None, None, 2.0]),
        min_user_interactions=random.choice([1, 1, 3]),
        drop_duplicates=random.random() < 0.7,
        unknown_items=random.choice(["keep", "drop", "error"]),
        unused_items=random.choice(["keep", "drop"]),
        delimiter=delimiter,
        encoding=encoding,
    )
    split = random.choice([LeaveOneOut(), RatioPerUser(), GlobalTime()])
    model = SimpleNamespace(training_mode=random.choice([WINDOWS, POSITIONS, USERS]), max_history=5)

    def act() -> None:
        for _ in range(2):  # prepared, then found
            dataset = LargeDataset(source, split, block_values=random.choice([3, 1000]))
            dataset.describe()
            _ = dataset.fingerprint, dataset.titles, dataset.spec, dataset.split
            for epoch in (0, 1):
                plan = dataset.view("sequences").train_plan(model, batch_size=8, seed=1, epoch=epoch)  # pyright: ignore
                len(plan)

    return act


def _rows(source: TableSource, timestamp: str | None, features: Any) -> None:
    from genrec.data.row_splits import RandomRows

    split = RandomRows() if timestamp is None else GlobalTime()
    dataset = TableDataset(source, split, labels="click", features=features, timestamp=timestamp)
    dataset.describe()
    _ = dataset.fingerprint, dataset.spec


def tables(random: Random, folder: Path) -> Case:
    """A table of interactions or rows, alone or beside one of items."""
    suffix = random.choice(_SUFFIXES)
    path = folder / f"interactions{suffix}"
    table = frame()
    if random.random() < 0.3:
        table = frame_of(random, table)
    if random.random() < 0.3 and path.suffix in (".csv", ".tsv", ".inter", ".txt"):
        path.write_bytes(odd_text(random, "," if path.suffix == ".csv" else "\t"))
        how = "odd rows"
    else:
        write(table, path)
        how = file_of(random, path) if random.random() < 0.8 else "another table"
    if random.random() < 0.4:
        items = folder / f"items{random.choice(_SUFFIXES)}"
        write(frame().select("item_id", "title").unique("item_id", maintain_order=True), items)
        how += f", items: {file_of(random, items)}"
    return Case(f"interactions{suffix}: {how}", read(random, path))


# ---- data sets as they are published --------------------------------------------------------------------------------


def _movielens_100k(folder: Path) -> None:
    rows = [f"{row % 7 + 1}\t{row * 7 % 11 + 1}\t{row % 5 + 1}\t{880_000_000 + row}" for row in range(_ROWS)]
    (folder / "u.data").write_text("\n".join(rows) + "\n")
    genres = "|".join(["0"] * 18 + ["1"])
    films = [f"{item}|Film {item} (1995)|01-Jan-1995||http://x|{genres}" for item in range(1, 12)]
    (folder / "u.item").write_text("\n".join(films) + "\n")


def _movielens_1m(folder: Path) -> None:
    rows = [f"{row % 7 + 1}::{row * 7 % 11 + 1}::{row % 5 + 1}::{880_000_000 + row}" for row in range(_ROWS)]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = [f"{item}::Film {item} (1995)::Comedy|Drama" for item in range(1, 12)]
    (folder / "movies.dat").write_text("\n".join(films) + "\n")


def _movielens_csv(folder: Path) -> None:
    rows = [f"{row % 7 + 1},{row * 7 % 11 + 1},{row % 5 + 1},{880_000_000 + row}" for row in range(_ROWS)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")
    films = [f'{item},"Film, The {item} (1995)",Comedy|Drama' for item in range(1, 12)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]) + "\n")


def _lastfm(folder: Path) -> None:
    plays = [f"{row % 7}\t{row * 7 % 11}\t{row + 1}" for row in range(_ROWS)]
    (folder / "user_artists.dat").write_text("\n".join(["userID\tartistID\tweight", *plays]) + "\n")
    artists = [f"{item}\tArtist {item}\thttp://x\thttp://y" for item in range(11)]
    (folder / "artists.dat").write_text("\n".join(["id\tname\turl\tpictureURL", *artists]) + "\n")
    (folder / "tags.dat").write_text("tagID\ttagValue\n1\trock\n2\tpop\n")
    uses = [f"{row % 7}\t{row * 7 % 11}\t{row % 2 + 1}\t1\t4\t2009" for row in range(_ROWS)]
    (folder / "user_taggedartists.dat").write_text(
        "\n".join(["userID\tartistID\ttagID\tday\tmonth\tyear", *uses]) + "\n"
    )
    (folder / "user_friends.dat").write_text("userID\tfriendID\n1\t2\n2\t1\n3\t4\n")


def _amazon(folder: Path) -> None:
    reviews = [
        {"reviewerID": f"A{row % 7}", "asin": f"B{row * 7 % 11}", "unixReviewTime": 1_300_000_000 + row, "overall": 4.0}
        for row in range(_ROWS)
    ]
    content = "\n".join(map(json.dumps, reviews))
    (folder / "reviews_Beauty.json.gz").write_bytes(gzip.compress(content.encode()))
    products = [
        {"asin": f"B{item}", "title": f"Soap {item}", "price": 3.5, "categories": [["a", "b"]]} for item in range(11)
    ]
    text = "\n".join(repr(product) for product in products)
    (folder / "meta_Beauty.json.gz").write_bytes(gzip.compress(text.encode()))


def _amazon_prepared(folder: Path) -> None:
    lines = [f"{user} {' '.join(str((user + step) % 9) for step in range(6))}" for user in range(7)]
    (folder / "sequences.txt").write_text("\n".join(lines) + "\n")
    frame().select("item_id", "title").unique("item_id", maintain_order=True).write_csv(folder / "items.csv")


def _canonical(folder: Path) -> None:
    from genrec.data.storage import save_folder

    raw = folder / "raw"
    raw.mkdir()
    write(frame(), raw / "interactions.csv")
    write(frame().select("item_id", "title").unique("item_id", maintain_order=True), raw / "items.csv")
    save_folder(FolderSource(path=str(raw)).load(), folder, name="own")
    shutil.rmtree(raw)


def _published(name: str, folder: Path) -> Any:
    """The source that reads a published data set."""
    from genrec.data.sources.amazon import AmazonSource
    from genrec.data.sources.lastfm import LastFMSource
    from genrec.data.sources.movielens import MovieLensSource

    if name.startswith("movielens"):
        return MovieLensSource(path=str(folder), progress=False)
    if name == "lastfm":
        return LastFMSource(path=str(folder), k_core=1, progress=False)
    if name.startswith("amazon"):
        return AmazonSource(path=str(folder), k_core=1, progress=False)
    return FolderSource(path=str(folder))


_PUBLISHED = {
    "movielens 100k": _movielens_100k, "movielens 1m": _movielens_1m, "movielens csv": _movielens_csv,
    "lastfm": _lastfm, "amazon": _amazon, "amazon prepared": _amazon_prepared, "canonical": _canonical,
}  # fmt: skip


def published(random: Random, folder: Path) -> Case:
    """A published data set, or a folder that genrec wrote, with one of its files mutated."""
    name = random.choice(list(_PUBLISHED))
    _PUBLISHED[name](folder)
    path = random.choice(sorted(item for item in folder.rglob("*") if item.is_file()))
    if random.random() < 0.05:
        path.unlink()
        how = "gone"
    else:
        how = file_of(random, path)
    ratings = name.startswith("movielens") and random.random() < 0.4

    def act() -> None:
        from genrec.data.sources.movielens_ratings import MovieLensRatingsSource

        if ratings:
            list(MovieLensRatingsSource(path=str(folder), progress=False).chunks())
        else:
            whole(Dataset(_published(name, folder), LeaveOneOut()))

    return Case(f"{name}, {path.name}: {how}", act)


# ---- artifacts ------------------------------------------------------------------------------------------------------


@cache
def sound() -> Path:
    """A folder of sound artifacts, made once per process."""
    import torch

    from genrec.semantic_ids import SemanticIds
    from genrec.tokenizers.features import TextTransform
    from genrec.tokenizers.streaming import ResidualCodec

    folder = Path(tempfile.mkdtemp(prefix="fuzz-sound-"))
    SemanticIds(np.array([[0, 1], [1, 0], [1, 1]]), (2, 2), 2).save(folder / "ids.npz")
    eye = np.eye(3, dtype=np.float32)
    ResidualCodec(TextTransform(eye[0], eye[1], eye), [eye, eye]).save(folder / "codec.npz")
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32))
    np.savez(folder / "vectors.npz", item_id=np.arange(11), vectors=np.ones((11, 4), np.float32))
    lists = pl.DataFrame({"item_id": range(11), "vector": [[1.0, 2.0]] * 11})
    lists.write_parquet(folder / "vectors.parquet")
    torch.save(torch.nn.Linear(3, 2).state_dict(), folder / "best_model.pt")
    torch.save({"format": 1, "model": {}, "identity": {}, "step": 3}, folder / "last.ckpt")
    write(frame(), folder / "rows.csv")
    _fitted(folder / "rows.csv").save(folder / "features.json")
    (folder / "rows.csv").unlink()
    (folder / "study.yaml").write_text(
        "question: What?\nrows: items\nseeds: [1, 2]\nthreads: 1\nplot: {metric: recall@10, leave_out: [popularity]}\n"
        "runs:\n  - {recipe: lightgcn_lastfm, name: lightgcn, data: lastfm, baselines: true}\n"
        "  - {model: [fm, deepfm], data: [frappe, hillstrom], words: [trainer=ctr], minutes: 3}\n"
    )
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/ratings.csv", "a,b\n1,2\n" * 50)
        archive.writestr("top/movies.csv", "a,b\n1,2\n" * 50)
    return folder


def _fitted(path: Path) -> Any:
    from genrec.data.row_splits import RandomRows

    features: dict[str, Any] = {
        "rating": {"type": "dense", "transform": "quantile"},
        "user_id": "sparse",
        "item_id": {"type": "sparse", "hash": 4},
        "title": {"type": "sequence", "separator": " "},
        "timestamp": {"type": "sparse", "bucket": 5},
    }
    return TableDataset(TableSource(path=str(path)), RandomRows(), labels="click", features=features).fitted


def _readers(path: Path, folder: Path) -> list[Callable[[], object]]:
    """What reads an artifact of a name."""
    import torch

    from genrec.data.download import extract_zip
    from genrec.data.encoders.file import FileEncoder
    from genrec.data.fitted_features import FittedFeatures
    from genrec.semantic_ids import SemanticIds
    from genrec.tokenizers.file import FileTokenizer
    from genrec.tokenizers.streaming import ResidualCodec, encode_file, read_chunks
    from genrec.trainers.checkpoints import CheckpointFolder, load_weights

    raw = folder / "interactions.csv"
    write(frame(), raw)
    dataset = Dataset(FolderSource(path=str(raw)), LeaveOneOut())
    vectors: list[Callable[[], object]] = [
        lambda: FileEncoder(path=str(path)).encode(dataset),
        lambda: list(read_chunks(path, chunk=4)),
        lambda: encode_file(lambda part: np.zeros((len(part), 2)), path, folder / "out.npy"),
    ]

    def study() -> None:
        from experiments.plan import read_study

        read_study(folder)

    table: dict[str, list[Callable[[], object]]] = {
        "ids.npz": [
            lambda: SemanticIds.load(path),
            lambda: FileTokenizer(path=str(path)).fit(np.ones((3, 2), np.float32), None, None),  # pyright: ignore
        ],
        "codec.npz": [lambda: ResidualCodec.load(path)(np.ones((2, 3), np.float32))],
        "best_model.pt": [lambda: load_weights(path, torch.nn.Linear(3, 2))],
        "last.ckpt": [lambda: CheckpointFolder(folder).load_last()],
        "features.json": [
            lambda: FittedFeatures.load(path).transform(frame().with_columns(pl.col("title").str.slice(0, 9)))
        ],
        "study.yaml": [study],
        "archive.zip": [lambda: extract_zip(path, folder / "out")],
    }
    return table.get(path.name, vectors)


def artifacts(random: Random, folder: Path) -> Case:
    """A file that genrec wrote, or that is given to it, mutated."""
    path = random.choice(sorted(sound().iterdir()))
    copied = Path(shutil.copy(path, folder))
    how = file_of(random, copied)
    return Case(f"{path.name}: {how}", random.choice(_readers(copied, folder)))


AREAS = (Area("tables", tables, seconds=120), Area("published", published), Area("artifacts", artifacts))
