"""What the fuzzer and the properties found: each ends in a sentence now, or goes through."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf

from experiments.plan import read_study
from genrec.artifacts import write_json
from genrec.config import instantiate
from genrec.config.command_line import Composer, command_faults, preflight
from genrec.config.root import check
from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.encoders.file import FileEncoder
from genrec.data.encoders.tfidf import TfidfEncoder
from genrec.data.fitted_features import FittedFeatures
from genrec.data.interactions import DataReport
from genrec.data.large.source import LargeSource
from genrec.data.sources.amazon import AmazonSource, read_sequences
from genrec.data.sources.folder import FolderSource
from genrec.data.sources.movielens import MovieLensSource
from genrec.data.sources.movielens_ratings import MovieLensRatingsSource
from genrec.data.sources.table import TableSource
from genrec.data.splits import LeaveOneOut
from genrec.data.storage import load_folder, save_folder
from genrec.data.table import TableDataset
from genrec.data.tables import read_table
from genrec.optimizers import SGD
from genrec.records import read_run, read_sweep
from genrec.semantic_ids import SemanticIds
from genrec.sweeps.resume import resumed_sweep
from genrec.sweeps.seeds import with_seeds
from genrec.tokenizers.features import TextTransform
from genrec.tokenizers.streaming import ResidualCodec, read_chunks
from genrec.trainers.curriculum import CurriculumTrainer
from genrec.trainers.simple import SimpleTrainer
from tests.fuzz.cases import RefusedError
from tests.fuzz.files import frame, write
from tests.fuzz.processes import started
from tests.report.run_folders import make_run, make_sweep


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as made:
        yield made


# ---- words of a command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.lr_patience=glob(*)"], "trainer.lr_patience=glob(*): it stands for no value at all"),
        (["model=gru4rec", "~trainer._target_"], "trainer._target_: the class to build is not named"),
        (["hardware._target_=[a.b]"], "hardware._target_=[a.b]: expected a string"),
        (["optimizer._partial_=3"], "optimizer._partial_=3: expected true or false"),
        (["trainer._convert_=x"], "trainer._convert_=x: expected one of none, partial, object, all"),
        (["allow_targets=1.5"], "allow_targets=1.5: expected a list"),
        (["allow_targets=${..seed}"], "allow_targets=${..seed}: the interpolation cannot be resolved"),
        (["seed=4294967296"], "seed=4294967296: expected a whole number of at least 0 and of at most 4294967295"),
        (["++data.source=3"], "data.source=3: expected a mapping with _target_"),
        (["++data.split=null"], "data.split=null: expected a mapping with _target_"),
        (["-m", "seed=1,2", "hydra.sweeper=null"], "hydra.sweeper=null: a sweep needs one"),
        (["~progress"], "progress: a run needs it"),
        (["k_values.x=1"], "k_values.x=1: invalid literal"),
        (["model.num_layers=[???]"], "model.num_layers[0]: it has no default"),
        (["trainer=rqvae", "trainer.eval_every_epochs=0"], "trainer.eval_every_epochs=0: expected a whole"),
        (["trainer=simple", "trainer.train_recall_k=0"], "trainer.train_recall_k=0: expected a whole"),
        (["trainer=online", "trainer.max_epochs=0"], "trainer.max_epochs=0: expected a whole"),
        (["hardware.strategy=" + "[" * 400 + "]" * 400], "hardware.strategy=[[[[["),
        (["+model.x=" + "{a: " * 5000 + "1" + "}" * 5000], "+model.x={a: {a: "),
        (["+scheduler.x=1"], "scheduler={x:1}: expected a mapping with _target_"),
        (["+baselines.x.y=1"], "baselines.x={y:1}: expected a mapping with _target_"),
        (["+callbacks.x=3"], "callbacks.x=3: expected a mapping with _target_"),
        (["+logger.x=[1]"], "logger.x=[1]: expected a mapping with _target_"),
    ],
)  # fmt: skip
def test_words_are_refused_with_a_sentence(composer: Composer, words: list[str], said: str) -> None:
    several = "-m" in words
    faults = command_faults(composer, [word for word in words if word != "-m"], multirun=several)
    assert any(str(fault).startswith(said) for fault in faults)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        pytest.param(
            "+scheduler._target_=genrec.losses.BPR",
            "scheduler._target_=genrec.losses.BPR is no schedule",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "+baselines.x._target_=genrec.losses.BPR",
            "baselines.x._target_=genrec.losses.BPR: a baseline is a model",
            marks=pytest.mark.slow,
        ),
        ("+callbacks.x._target_=genrec.losses.BPR", "callbacks.x: BPR is no callback of Lightning"),
    ],
)
def test_an_object_of_another_kind_is_told(word: str, said: str, tmp_path: Path) -> None:
    small = [
        "model=popularity",
        "trainer=simple",
        "data.source.num_users=20",
        "data.source.num_items=30",
        "logger=none",
    ]
    with pytest.raises(RefusedError) as raised:
        started([word, *small], tmp_path)
    assert said in str(raised.value)


def test_a_long_value_is_shown_in_short(composer: Composer) -> None:
    (fault,) = command_faults(composer, ["optimizer.lr=" + "x" * 20_000])
    assert 300 < len(str(fault)) < 800 and "xxx ... xxx" in str(fault)


def test_a_missing_value_within_a_list_is_told() -> None:
    config = OmegaConf.create({"model": {"_target_": "genrec.models.popularity.Popularity", "x": [["???"]]}})
    assert "model.x[0][0]" in [fault.key for fault in check(config)]


def test_a_trainer_that_is_no_node_is_told(composer: Composer) -> None:
    config = composer.compose([])
    config.trainer = True
    assert "trainer" in [fault.key for fault in check(config)]


def test_a_node_that_cannot_be_called_is_told_by_its_key() -> None:
    """``data.source.min_length=${model}``: a model needs what only a run gives it."""
    node = {"_target_": "genrec.data.sources.synthetic.SyntheticSource", "min_length": {"_target_": "torch.nn.Linear"}}
    with pytest.raises(GenrecError, match=r"^min_length: Error in call to target .* missing 2 required"):
        instantiate(node)


def test_words_with_interpolations_are_kept_as_they_were_given(tmp_path: Path) -> None:
    """``${..seed}`` ended with a traceback: the words themselves were resolved where they stand."""
    words = ["trainer.log_every_steps=${..seed}", "model=popularity", "trainer=simple", "baselines=null", "logger=none"]
    small = [
        "data.source.num_users=20",
        "data.source.num_items=30",
        "progress=false",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    started([*words, *small], tmp_path)
    assert "trainer.log_every_steps=${..seed}" in (tmp_path / "run" / "overrides.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweeper=1"], "hydra.sweeper=1: a sweep needs one"),
        (["hydra.sweeper._target_=genrec.nope"], "hydra.sweeper._target_=genrec.nope: genrec has no 'nope'"),
        (["hydra.launcher._target_=genrec.sweeps.optuna_sweeper.OptunaSweeper"], "hydra.launcher._target_="),
        (["hydra.sweeper._target_=os.system"], "hydra.sweeper._target_=os.system: a config may not run it"),
        (["hydra.sweeper.max_batch_size=0"], "hydra.sweeper.max_batch_size=0: expected a whole number of at least 1"),
        (["+hydra.launcher.nope=x"], "hydra.launcher.nope=x: BasicLauncher takes no such key"),
        (["hydra/sweeper=optuna", "hydra.sweeper.seed=${nope}"], "hydra.sweeper.seed=${nope}: the interpolation"),
        (["trainer.max_epochs=range(0,1,0)"], "trainer.max_epochs=range(0,1,0): a range goes from"),
        (["trainer.max_epochs=range(0,inf)"], "trainer.max_epochs=range(0,inf): a range goes from"),
        (["trainer.max_epochs=range(1,20000)"], "trainer.max_epochs=range(1,20000): a range names at most"),
        (["sweep=random", "model.num_layers=shuffle(range(1,1e12))"], "model.num_layers=shuffle("),
        (["hydra.sweeper.params={optimizer.lr: '${nope}'}"], "config: Hydra cannot put it together"),
    ],
)  # fmt: skip
def test_sweeps_that_cannot_begin_are_refused(composer: Composer, words: list[str], said: str) -> None:
    faults = command_faults(composer, ["seed=1,2", *words], multirun=True)
    assert any(str(fault).startswith(said) for fault in faults), [str(fault) for fault in faults]


@pytest.mark.parametrize(
    "words", [["--cfg", "job", "-m"], ["--info", "-m"], ["--run", "--multirun"], ["--cfg=job", "-r"]]
)
def test_one_thing_is_asked_for_at_a_time(words: list[str], capsys) -> None:
    assert preflight(words) == 2
    assert "ask for different things: give one" in capsys.readouterr().err
    assert preflight(["--hydra-help", "model=fm"]) == 2
    assert "--hydra-help stands alone: leave out model=fm" in capsys.readouterr().err
    assert preflight(["--resolve"]) == 2
    assert "--cfg job --resolve" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["seeds=99999999999"], ["seeds=" + "9" * 5000], ["seeds=[1,4294967296]"],
                                   ["seeds=2", "seed=" + "9" * 5000]])  # fmt: skip
def test_seeds_that_nobody_can_count_are_refused(words: list[str]) -> None:
    with pytest.raises(GenrecError, match="4294967295") as raised:
        with_seeds(words, lambda _: None)
    assert len(str(raised.value)) < 400


@pytest.mark.slow
def test_what_a_launcher_raises_is_a_sentence(tmp_path: Path) -> None:
    """joblib, and submitit where there is no Slurm, ended with their own tracebacks."""
    words = ["seed=1,2", "-m", "hydra/launcher=parallel", "hydra.launcher.n_jobs=x", "model=popularity"]
    with pytest.raises(RefusedError, match=r"failed: n_jobs could not be converted to int \(ValueError\)"):
        started(words, tmp_path)
    (trace,) = tmp_path.glob("outputs/multirun/*/*/launch_error.txt")
    assert "Traceback" in trace.read_text()


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_blank_times_in_quotes_are_no_times(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('user_id,item_id,timestamp\n"a","b",""\n')
    assert FolderSource(path=str(tmp_path / "x.csv")).load().log.timestamps is None


def test_one_word_is_enough_for_tfidf(tmp_path: Path) -> None:
    """scikit-learn refuses to compress one column."""
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u,{item}\n" for item in range(4)))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{item},thing\n" for item in range(4)))
    vectors = TfidfEncoder().encode(Dataset(FolderSource(path=str(tmp_path)), LeaveOneOut()))
    assert vectors.tolist() == [[1.0]] * 4


def test_messages_show_a_piece_of_what_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n1,"2' + "A" * 70_000 + '"x,3\n')
    with pytest.raises(GenrecError) as raised:
        read_table(tmp_path / "x.csv")
    assert len(str(raised.value)) < 1000


def test_names_of_columns_are_shown_as_far_as_somebody_reads(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(["u" + "A" * 70_000, *(f"c{place}" for place in range(200))]) + "\n1\n")
    with pytest.raises(GenrecError, match="and 141 more") as raised:
        FolderSource(path=str(tmp_path / "x.csv")).load()
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("days", [10**8, -(10**8)])
def test_dates_out_of_all_years_are_refused(days: int, tmp_path: Path) -> None:
    table = frame().with_columns(timestamp=pl.Series([days] * 60, dtype=pl.Int32).cast(pl.Date))
    table.write_parquet(tmp_path / "x.parquet")
    for read in (
        lambda: FolderSource(path=str(tmp_path)).load(),
        lambda: list(TableSource(path=str(tmp_path)).chunks()),
    ):
        with pytest.raises(GenrecError, match="timestamp holds dates beyond the years 1 to 9999"):
            read()


def test_dates_of_all_years_are_read(tmp_path: Path) -> None:
    ends = [datetime.datetime.min, datetime.datetime(9999, 12, 31, 23, 59, 59)]
    table = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": ends})
    table.write_parquet(tmp_path / "x.parquet")
    assert len(FolderSource(path=str(tmp_path / "x.parquet")).load().log) == 2


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "x.csv.gz"
    bomb.write_bytes(gzip.compress(b"user_id,item_id\n" + b"0" * 30_000_000))
    monkeypatch.setattr("genrec.data.unpacking._UNSUSPICIOUS", 1_000_000)
    with pytest.raises(GenrecError, match=r"over 100 times its own size; refused\. .*GENREC_MAX_UNPACKED=40"):
        read_table(bomb)
    monkeypatch.setenv("GENREC_MAX_UNPACKED", "1")
    assert read_table(bomb).width == 2
    monkeypatch.setenv("GENREC_MAX_UNPACKED", "0.01")
    with pytest.raises(GenrecError, match=r"more than GENREC_MAX_UNPACKED=0\.01 \(GiB\); refused"):
        read_table(bomb)
    for wrong in ("x", "0", "-1", "nan"):
        monkeypatch.setenv("GENREC_MAX_UNPACKED", wrong)
        with pytest.raises(GenrecError, match="a number above 0"):
            read_table(bomb)


def test_reviews_without_an_end_of_line_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviews_Beauty.json.gz").write_bytes(gzip.compress(b"{" * 3_000_000))
    (tmp_path / "meta_Beauty.json.gz").write_bytes(gzip.compress(b"{}\n"))
    monkeypatch.setattr("genrec.data.unpacking._LONGEST_LINE", 2**20)
    with pytest.raises(GenrecError, match="has a line of more than 1 MiB; refused"):
        AmazonSource(path=str(tmp_path), progress=False).load()


# ---- data sets as they are published --------------------------------------------------------------------------------


def _movielens(folder: Path, movies: str) -> Path:
    ratings = "".join(f"{row % 3},{row % 5},4,{row}\n" for row in range(15))
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")
    (folder / "movies.csv").write_text(movies)
    return folder


def test_a_table_of_movies_without_ids_is_refused(tmp_path: Path) -> None:
    _movielens(tmp_path, "movieI,title,genres\n1,A (1990),Comedy\n")
    with pytest.raises(GenrecError, match="names a column that is not there"):
        MovieLensSource(path=str(tmp_path), k_core=1, progress=False).load()


def test_a_movie_told_twice_and_one_of_no_number_change_no_rating(tmp_path: Path) -> None:
    lines = "".join(f"{movie},Film {movie} (1990),Comedy\n" for movie in (0, 1, 1, 2, "inf", 3, 4))
    _movielens(tmp_path, f"movieId,title,genres\n{lines}")
    (table,) = MovieLensRatingsSource(path=str(tmp_path), progress=False).chunks()
    assert table.height == 15


def test_prepared_reviews_need_ids_of_items(tmp_path: Path) -> None:
    (tmp_path / "sequences.txt").write_text("1 2 3 4\n")
    (tmp_path / "items.csv").write_text("item,title\n2,A\n")
    with pytest.raises(GenrecError, match="No column is called item_id"):
        AmazonSource(path=str(tmp_path), progress=False).load()


def test_an_empty_file_of_sequences_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "sequences.txt").write_text("")
    assert read_sequences(tmp_path / "sequences.txt", DataReport()).height == 0


def _canonical(folder: Path) -> Path:
    write(frame(), folder / "raw.csv")
    save_folder(FolderSource(path=str(folder / "raw.csv")).load(), folder, name="own")
    return folder


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("interactions.parquet", pl.lit("x").alias("timestamp")),
        ("interactions.parquet", pl.concat_list("rating").alias("rating")),
        ("users.parquet", pl.lit(1.5).alias("user_id")),
        ("items.parquet", pl.concat_list("item_id").alias("title")),
        ("items.parquet", pl.col("item_id").alias("x")),
    ],
)
def test_a_canonical_folder_of_other_columns_is_refused(file: str, column: pl.Expr, tmp_path: Path) -> None:
    path = _canonical(tmp_path) / file
    table = pl.read_parquet(path).with_columns(column)
    (table.drop("item_id") if "x" in table.columns else table).write_parquet(path)
    with pytest.raises(GenrecError, match="are not as genrec wrote them"):
        load_folder(tmp_path)


def test_a_canonical_folder_with_a_strange_report_is_refused(tmp_path: Path) -> None:
    path = _canonical(tmp_path) / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "report": {"counts": 3}}))
    with pytest.raises(GenrecError, match="describes no data set"):
        load_folder(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "idna", "undefined", "nope", "x\x00"])
def test_text_of_another_encoding_is_told(encoding: str, tmp_path: Path) -> None:
    """UTF-16 without its mark, and encodings that Python has but files have not, raise no ``UnicodeDecodeError``."""
    (tmp_path / "x.csv").write_text("user_id,item_id,timestamp\na,é,3\n")
    with pytest.raises(GenrecError, match=r"is not (utf-16|idna|undefined)|is no text encoding"):
        LargeSource(path=str(tmp_path / "x.csv"), cache_dir=str(tmp_path / "cache"), encoding=encoding).load()
    with pytest.raises(GenrecError, match=r"utf-16|is no text encoding|Name the file's encoding"):
        read_table(tmp_path / "x.csv", encoding=encoding)


# ---- artifacts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean", "scale", "directions", "codebook_0", "codebook_1"])
@pytest.mark.parametrize("change", [lambda a: a[:0], lambda a: a[None], lambda a: np.array(3.0), lambda a: a * np.nan])
def test_a_codec_of_other_arrays_is_refused(name: str, change, tmp_path: Path) -> None:
    eye = np.eye(3, dtype=np.float32)
    ResidualCodec(TextTransform(eye[0], eye[1], eye), [eye, eye]).save(tmp_path / "codec.npz")
    arrays = dict(np.load(tmp_path / "codec.npz"))
    np.savez(tmp_path / "codec.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(GenrecError, match="is no codec"):
        ResidualCodec.load(tmp_path / "codec.npz")


def test_vectors_beside_a_single_id_are_refused(tmp_path: Path) -> None:
    write(frame(), tmp_path / "x.csv")
    np.savez(tmp_path / "v.npz", item_id=np.array(3), vectors=np.ones((11, 4)))
    with pytest.raises(GenrecError, match=r"ids of shape \(\) stand beside vectors of shape \(11, 4\)"):
        FileEncoder(path=str(tmp_path / "v.npz")).encode(
            Dataset(FolderSource(path=str(tmp_path / "x.csv")), LeaveOneOut())
        )


def test_a_broken_header_is_told_without_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    content = (tmp_path / "v.npy").read_bytes().replace(b"'shape': (3, 2)", b"'shape': (3, x)")
    (tmp_path / "v.npy").write_bytes(content)
    write(frame(), tmp_path / "x.csv")
    encoder = FileEncoder(path=str(tmp_path / "v.npy"))
    data = Dataset(FolderSource(path=str(tmp_path / "x.csv")), LeaveOneOut())
    for read in (lambda: list(read_chunks(tmp_path / "v.npy")), lambda: encoder.encode(data)):
        with pytest.raises(GenrecError, match="could not be read as item vectors") as raised:
            read()
        assert " object at 0x" not in str(raised.value)


def test_vectors_of_a_negative_shape_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    content = (tmp_path / "v.npy").read_bytes().replace(b"'shape': (3, 2), ", b"'shape': (3, -2),")
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(GenrecError, match=r"must be a table of numbers.*found shape \(3, -2\)"):
        list(read_chunks(tmp_path / "v.npy"))


def test_codes_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    SemanticIds(np.array([[0], [1]]), (2**62,), 1).save(tmp_path / "ids.npz")
    with pytest.raises(GenrecError, match="67,108,864 are the most"):
        SemanticIds.load(tmp_path / "ids.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["dense"][0][1].update(quantiles=["x"]),
        lambda state: state["dense"][0][1].update(scale="x"),
        lambda state: state["sparse"][0].update(size=99),
        lambda state: state["sparse"][0].update(table="other"),
        lambda state: state["ids"]["user_id"].update(values=[1]),
        lambda state: state.update(tasks=[]),
        lambda state: state.update(group=3),
        lambda state: state.update(separators=["x"]),
        lambda state: state["labels"][0].update(threshold="x"),
    ],
)
def test_features_that_genrec_did_not_write_are_refused(change, tmp_path: Path) -> None:
    from genrec.data.row_splits import RandomRows

    write(frame(), tmp_path / "x.csv")
    features = {"rating": {"type": "dense", "transform": "quantile"}, "user_id": "sparse"}
    source = TableSource(path=str(tmp_path / "x.csv"))
    fitted = TableDataset(source, RandomRows(), labels="click", features=features, infer=False).fitted
    fitted.save(tmp_path / "features.json")
    assert FittedFeatures.load(tmp_path / "features.json").state() == fitted.state()
    state = json.loads((tmp_path / "features.json").read_text())
    change(state)
    write_json(tmp_path / "features.json", state)
    with pytest.raises(GenrecError, match="holds no features of a run"):
        FittedFeatures.load(tmp_path / "features.json")


@pytest.mark.parametrize(
    "text",
    ["[1]", "question: 3", "question: a\nrows: items\nseeds: [1]\nplot: {metric: x}\nruns: null",
     "question: a\nrows: items\nseeds: 1\nplot: {metric: x}\nruns: []", "\udc8b",
     "question: a\nrows: items\nseeds: [1]\nplot: {metric: x}\nruns: [{model: 3, data: x}]",
     "question: a\nrows: items\nseeds: [1]\nplot: {metric: x}\nruns: [{model: fm}]",
     "question: a\nrows: items\nseeds: [1]\nplot: {metric: x, leave_out: 1}\nruns: []",
     "question: a\nrows: items\nseeds: [1]\nplot: {metric: x}\nwords: [1]\nruns: []"],
)  # fmt: skip
def test_a_plan_of_other_kinds_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(GenrecError, match=r"study\.yaml"):
        read_study(tmp_path)


# ---- run folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "value", "ask"),
    [
        ("timing.json", {"fit": "x"}, lambda run: run.seconds),
        ("environment.json", {"git": [1]}, lambda run: run.environment),
        ("environment.json", {"git": {"commit": 3}}, lambda run: run.environment),
        ("environment.json", {"command": 3}, lambda run: run.environment),
        ("environment.json", {"data_fingerprint": [1]}, lambda run: run.environment),
        ("samples.json", [{"targets": 3}], lambda run: run.samples),
        ("samples.json", [{"recommended": [3]}], lambda run: run.samples),
        ("samples.json", [{"history_length": "x"}], lambda run: run.samples),
        ("resources.json", 1.5, lambda run: run.resources),
        ("resources.json", {"parameters": "x"}, lambda run: run.resources),
        ("resources.json", {"stages": {"fit": {"seconds": ""}}}, lambda run: run.stages),
        ("resources.json", {"stages": {"fit": {"peak_resident_bytes": 1}}}, lambda run: run.stages),
        ("metrics.json", {"final": {"test/recall@10": "x"}}, lambda run: run.final),
        ("metrics.json", {"final": [1]}, lambda run: run.final),
        ("history.json", [{"epoch": [1]}], lambda run: run.epochs),
        ("metrics.json", [1], lambda run: run.final),
        ("environment.json", [1], lambda run: run.environment),
        ("tokenizer_report.json", {"a": None}, lambda run: run.tokenizer),
        ("samples.json", {"a": 1}, lambda run: run.samples),
        ("config.yaml", {"trainer": 3}, lambda run: run.config),
        ("config.yaml", {"data": {"source": [1]}}, lambda run: run.config),
        ("config.yaml", [1], lambda run: run.config),
        ("overrides.yaml", {"a": 1}, lambda run: run.words),
    ],
)
def test_a_run_folder_of_other_values_is_told_by_file(file: str, value: object, ask, tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / file).write_text(json.dumps(value))
    with pytest.raises(GenrecError, match=f"{file} is not as genrec wrote it"):
        ask(read_run(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [("objectives", [[["val/loss"], "min"]]), ("objectives", [["a"]]), ("command", [1]), ("scales", {"a": 1}),
     ("seconds", "x"), ("started", [1])],
)  # fmt: skip
def test_facts_of_a_sweep_are_of_their_kinds(name: str, value: object, tmp_path: Path) -> None:
    """Hydra made a warning of it, and the sweep ended without its table."""
    make_sweep(tmp_path)
    sweep = json.loads((tmp_path / "sweep.json").read_text())
    write_json(tmp_path / "sweep.json", {**sweep, name: value})
    for read in (lambda: read_sweep(tmp_path), lambda: resumed_sweep([], str(tmp_path), tmp_path)):
        with pytest.raises(GenrecError, match=r"sweep\.json is not as genrec wrote it"):
            read()


@pytest.mark.parametrize(
    ("name", "value"),
    [("started", "x"), ("started", 1e30), ("ended", -1e12), ("ended", [1]), ("error", 3), ("best_epoch", "x")],
)
def test_facts_of_a_run_are_of_their_kinds(name: str, value: object, tmp_path: Path) -> None:
    make_run(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    write_json(tmp_path / "run.json", {**run, name: value})
    with pytest.raises(GenrecError, match=rf"run\.json is not as genrec wrote it: it has .* as {name}"):
        read_run(tmp_path)


def test_users_of_a_test_have_numbers(tmp_path: Path) -> None:
    make_run(tmp_path)
    pl.DataFrame({"user_id": ["a"], "recall@5": ["x"]}).write_parquet(tmp_path / "test_users.parquet")
    with pytest.raises(GenrecError, match="recall@5 holds no numbers"):
        read_run(tmp_path).users()


# ---- training -------------------------------------------------------------------------------------------------------


def test_pairs_of_a_catalogue_of_one_item_stay_in_it() -> None:
    from genrec.contracts import DataSpec, SequenceBatch
    from genrec.data.ragged import Ragged
    from genrec.graph import TypedGraph
    from genrec.models.bpr_mf import BPRMF

    train = Ragged.from_rows([[0], [0], [0]])
    spec = DataSpec(num_users=3, num_items=1, train=train, graph=TypedGraph(train, 1))
    one = torch.zeros(3, 1, dtype=torch.long)
    batch = SequenceBatch(torch.arange(3), one, torch.ones(3, dtype=torch.long), one)
    assert torch.isfinite(BPRMF(spec).loss(batch).total)


@pytest.mark.parametrize("nesterov", [False, True])
def test_weights_whose_gradients_come_late_are_trained_by_fused_sgd(nesterov: bool) -> None:
    """As torch's own loops train them; its fused kernel ended with a TypeError."""
    results = []
    for kind, fused in ((SGD, True), (torch.optim.SGD, False)):
        early, late = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
        optimizer = kind([early, late], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01, fused=fused)
        for step in range(4):
            optimizer.zero_grad()

            def closure(step: int = step, early=early, late=late) -> torch.Tensor:
                loss = (early**2).sum() + (late**3).sum() if step >= 2 else (early**2).sum()
                loss.backward()
                return loss

            assert optimizer.step(closure) is not None
        results.append(torch.stack([early, late]).detach())
    torch.testing.assert_close(results[0], results[1])


def test_an_epoch_that_teaches_nothing_has_a_line() -> None:
    """A curriculum whose easiest items are nobody's targets has no training loss to tell."""
    for trainer in (CurriculumTrainer(max_epochs=2), SimpleTrainer(max_epochs=2)):
        trainer.current_epoch = 1
        assert "oss: nan" in trainer.epoch_line({}, {})
