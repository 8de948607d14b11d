"""The config of a run folder that somebody else may have made."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from genrec.config import recorded_config
from genrec.config.recorded import ADDRESSES
from genrec.config.targets import VARIABLE
from genrec.contracts import GenrecError
from genrec.remote.copies import localised

GOOD = """
model: {_target_: genrec.models.popularity.Popularity}
data:
  _target_: genrec.data.dataset.Dataset
  source: {_target_: genrec.data.sources.movielens.MovieLensSource, download: true, base_url: http://x.org}
filter_seen: false
"""


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_a_config_as_genrec_writes_it_is_read_and_fetches_nothing(tmp_path: Path) -> None:
    config = recorded_config(written(tmp_path, GOOD + "allow_targets: [os]\n"))
    assert config.model._target_ == "genrec.models.popularity.Popularity"
    assert config.filter_seen is False and config.data.source.download is False
    assert list(config.allow_targets) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("genrec.models.popularity.Popularity", "os.system"), "os.system"),
        (GOOD + "x: [{y: {_target_: subprocess.Popen, args: [sh]}}]\nallow_targets: [subprocess]\n", "subprocess"),
        (GOOD + "cache_dir: ${oc.env:HOME}\n", "oc.env"),
        (GOOD + "x: !!python/object/apply:os.system ['touch ran']\n", "not valid YAML"),
        ("- 1\n", "not the config of a run"),
        ("", "not the config of a run"),
        ("model: 3\ndata: {}\n", "not the config of a run"),
        ("a: [", "not valid YAML"),
        (b"\xff\xfe\x00\x01", "not valid YAML"),
        ("[" * 100_000, "not valid YAML"),  # LibYAML brings the interpreter down
        ("- " * 100_000, "not valid YAML"),
        ("a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(64)), "100,000 values"),
    ],
)
def test_others_are_refused_in_a_sentence(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(GenrecError, match=said) as refused:
        recorded_config(written(tmp_path, text))
    assert "\n" not in str(refused.value) and str(tmp_path / "config.yaml") in str(refused.value)


def test_no_config_at_all(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="is not a run folder"):
        recorded_config(tmp_path)


def test_only_the_environment_widens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, GOOD.replace("genrec.models.popularity.Popularity", "fractions.Fraction"))
    with pytest.raises(GenrecError, match=f"{VARIABLE}=fractions in the environment"):
        recorded_config(folder)
    monkeypatch.setenv(VARIABLE, "fractions")
    assert recorded_config(folder).allow_targets == ["fractions"]


REMOTE = GOOD.replace("download: true", "path: 'memory://shop/x.csv', storage_options: {endpoint_url: http://evil}")


def test_data_of_a_store_are_taken_from_the_copy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, REMOTE + f"cache_dir: {tmp_path}/cache\n")
    with pytest.raises(GenrecError, match=f"has no copy.*{ADDRESSES}=memory://shop/x.csv") as refused:
        recorded_config(folder)
    assert "\n" not in str(refused.value)
    assert recorded_config(folder, data=False).data.source.path == "memory://shop/x.csv"
    fsspec.filesystem("memory").pipe_file("/shop/x.csv", b"user_id,item_id\n")
    copy = localised("memory://shop/x.csv", tmp_path / "cache")
    source = recorded_config(folder).data.source
    assert source.path == str(copy) and source.storage_options is None
    monkeypatch.setenv(ADDRESSES, "s3://other, memory://shop")
    source = recorded_config(folder).data.source
    assert source.path == "memory://shop/x.csv" and source.storage_options is None


@pytest.mark.parametrize("named", ["memory://sho", "memory://shop/y", "memory", "shop", ","])
def test_no_other_address_is_meant(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESSES, named)
    with pytest.raises(GenrecError, match="has no copy"):
        recorded_config(written(tmp_path, REMOTE + f"cache_dir: {tmp_path}/nothing\n"))
