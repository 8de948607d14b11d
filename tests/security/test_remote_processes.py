"""Runs on data of a store, as a user starts them: what they read, what they write down, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec.config.recorded import ADDRESSES
from genrec.masking import HIDDEN
from tests.remote.store_server import StoreServer, serving

SECRET, PASSWORD, SIGNATURE = "k3y-5ec2e75ec2e7", "pa55word99", "51gnature51gnature"
INTERACTIONS = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user + step) % 12},{step}\n" for user in range(30) for step in range(6)
)
WORDS = [
    *(
        "trainer=simple",
        "trainer.max_epochs=1",
        "logger=csv",
        "hardware=cpu",
        "hardware.num_threads=1",
        "progress=false",
    ),
    *("baselines=null", "model=sasrec", "model.embedding_dim=8", "data=folder", "hydra.run.dir=run"),
]


@pytest.fixture
def store() -> Iterator[StoreServer]:
    with serving() as server:
        server.files["/shop/interactions.csv"] = INTERACTIONS.encode()
        server.files["/shop/items.csv"] = ("item_id,title\n" + "".join(f"i{n},Chair {n}\n" for n in range(12))).encode()
        server.key = SECRET
        yield server


def command(place: Path, module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    variables = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment}
    line = [sys.executable, "-m", f"genrec.{module}", *words]
    return subprocess.run(line, capture_output=True, text=True, cwd=place, env=variables, timeout=300)


def test_a_run_on_a_store_and_what_can_be_done_with_it_afterwards(store: StoreServer, tmp_path: Path) -> None:
    host = store.url.partition("://")[2]
    path = f"http://me:{PASSWORD}@{host}/shop/?X-Amz-Signature={SIGNATURE}"
    words = [f"data.path='{path}'", "data.storage_options={headers: {X-Key: '${oc.env:MY_KEY}'}}"]
    done = command(tmp_path, "run", *WORDS, *words, MY_KEY=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fetched" in done.stderr + done.stdout
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    written = b"".join(file.read_bytes() for file in files) + (done.stdout + done.stderr).encode()
    for secret in (SECRET, PASSWORD, SIGNATURE):
        assert secret.encode() not in written
    assert HIDDEN in (tmp_path / "run" / "config.yaml").read_text()

    store.requests.clear()
    said = command(tmp_path, "recommend", "run=run", "user=u3", "output=file://" + str(tmp_path / "out.csv"))
    assert said.returncode == 0, said.stderr
    assert "Chair" in (tmp_path / "out.csv").read_text() and not store.requests  # of the copy that the run has made

    (tmp_path / "outputs" / "cache").rename(tmp_path / "elsewhere")
    refused = command(tmp_path, "recommend", "run=run", "user=u3")
    assert refused.returncode == 2 and f"{ADDRESSES}=" in refused.stderr and not store.requests
    assert "Traceback" not in refused.stderr
    store.key = None
    allowed = command(tmp_path, "recommend", "run=run", "user=u3", **{ADDRESSES: f"http://{HIDDEN}@{host}/shop/"})
    assert allowed.returncode == 0 and store.requests, allowed.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.path=s3://bucket/x.csv", "runs_dir=s3://bucket/runs"], "a folder of this machine is needed"),
        (["data.path=x.csv", "cache_dir=gs://bucket/cache"], "a folder of this machine is needed"),
        (["data.path=x.csv", "hydra.run.dir=s3://bucket/run"], "a folder of this machine is needed"),
        (["data.path=simplecache::s3://bucket/x.csv"], "chains several file systems"),
        (["data.path=memory://nobody/x.csv"], "does not exist"),
    ],
)
def test_refusals_are_sentences(words: list[str], said: str, tmp_path: Path) -> None:
    done = command(tmp_path, "run", *WORDS[:-1], *words)
    told = done.stdout + done.stderr
    assert done.returncode in (1, 2) and said in told and "Traceback" not in told
    assert not any(path.name.endswith(":") for path in tmp_path.iterdir())  # nothing called "s3:"
