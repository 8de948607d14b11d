"""Codes of a file, chunk by chunk, against the codes of all at once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from genrec.contracts import DataSpec, GenrecError
from genrec.models.rqvae import RQVAE
from genrec.tokenizers.features import TextTransform, item_features
from genrec.tokenizers.streaming import ResidualCodec, encode_file, encode_with, read_chunks

VECTORS = np.random.default_rng(0).normal(size=(70, 6)).astype(np.float16)


def codec() -> ResidualCodec:
    transform = TextTransform.fit(VECTORS, 4)
    books = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
    return ResidualCodec(transform, list(books))


def by_hand(codec: ResidualCodec, vectors: np.ndarray) -> np.ndarray:
    rest, codes = codec.transform(vectors), []
    for book in codec.codebooks:
        codes.append(((rest[:, None] - book[None]) ** 2).sum(-1).argmin(1))
        rest = rest - book[codes[-1]]
    return np.stack(codes, axis=1)


@pytest.mark.parametrize("chunk", [1, 32, 70, 1000])
def test_codes_equal_brute_force_whatever_the_chunk(tmp_path: Path, chunk: int) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    assert encode_file(codec(), tmp_path / "vectors.npy", tmp_path / "codes.npy", chunk=chunk) == 70
    found = np.load(tmp_path / "codes.npy", allow_pickle=False)
    assert found.dtype == np.int32 and found.shape == (70, 3)
    np.testing.assert_array_equal(found, by_hand(codec(), VECTORS.astype(np.float32)))


def test_parquet_holds_the_same_vectors(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": range(70), "vector": VECTORS.astype(np.float32).tolist()})
    frame.write_parquet(tmp_path / "vectors.parquet")
    for kind in (pl.List(pl.Float32), pl.Array(pl.Float64, VECTORS.shape[1])):
        frame.with_columns(pl.col("vector").cast(kind)).write_parquet(tmp_path / "vectors.parquet", row_group_size=30)
        parts = list(read_chunks(tmp_path / "vectors.parquet", chunk=32))
        assert max(len(part) for part in parts) <= 32
        np.testing.assert_array_equal(np.concatenate(parts), VECTORS.astype(np.float32))


@pytest.mark.parametrize(("last", "said"), [([1.0], "could not be read"), ([1.0, None], "row 41 holds NaN")])
def test_parquet_rows_that_are_no_vectors_are_told(tmp_path: Path, last: list[float], said: str) -> None:
    pl.DataFrame({"vector": [[0.5, 1.0]] * 41 + [last]}).write_parquet(tmp_path / "vectors.parquet")
    with pytest.raises(GenrecError, match=said):
        list(read_chunks(tmp_path / "vectors.parquet", chunk=32))


def test_transform_of_all_items_is_the_text_part_of_the_features() -> None:
    vectors = VECTORS.astype(np.float32)
    features = item_features(vectors, None, text_dim=4, collaborative_dim=0)  # pyright: ignore[reportArgumentType]
    transform = TextTransform.fit(vectors, 4)
    np.testing.assert_array_equal(transform(vectors), features)
    np.testing.assert_allclose(transform(vectors[5:6])[0], features[5], atol=1e-6)


def test_codec_survives_save_and_load(tmp_path: Path) -> None:
    codec().save(tmp_path / "codec.npz")
    np.testing.assert_array_equal(ResidualCodec.load(tmp_path / "codec.npz")(VECTORS), codec()(VECTORS))


def test_a_trained_model_encodes_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vectors = VECTORS.astype(np.float32)
    model = RQVAE(DataSpec(1, 70, item_vectors=vectors), hidden_dims=[8], latent_dim=4, num_embeddings=8)
    np.save(tmp_path / "vectors.npy", vectors)
    encode_file(encode_with(model), tmp_path / "vectors.npy", tmp_path / "codes.npy", chunk=16)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), model.encode(torch.from_numpy(vectors)).numpy())


def test_nothing_is_written_when_a_row_is_broken(tmp_path: Path) -> None:
    broken = VECTORS.copy()
    broken[40, 2] = np.nan
    np.save(tmp_path / "vectors.npy", broken)
    with pytest.raises(GenrecError, match="row 40"):
        encode_file(codec(), tmp_path / "vectors.npy", tmp_path / "codes.npy", chunk=16)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]


def test_mistakes_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "wide.npy", np.zeros((3, 9)))
    np.save(tmp_path / "none.npy", np.zeros((0, 6)))
    cases = {
        "flat.npy": "shape",
        "wide.npy": "width 6",
        "none.npy": "no vectors",
        "x.npy": "does not exist",
        "x.csv": "npy",
    }
    for name, message in cases.items():
        with pytest.raises(GenrecError, match=message):
            encode_file(codec(), tmp_path / name, tmp_path / "codes.npy")
    with pytest.raises(GenrecError, match="No codec"):
        ResidualCodec.load(tmp_path / "codec.npz")


def test_codebooks_of_half_precision_are_read(tmp_path: Path) -> None:
    whole = codec()
    halves = [book.astype(np.float16) for book in whole.codebooks]
    ResidualCodec(whole.transform, halves).save(tmp_path / "codec.npz")
    rounded = ResidualCodec(whole.transform, [book.astype(np.float32) for book in halves])
    np.testing.assert_array_equal(ResidualCodec.load(tmp_path / "codec.npz")(VECTORS), rounded(VECTORS))
