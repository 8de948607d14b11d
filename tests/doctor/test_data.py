"""Data sets that are here, damaged, half there, or elsewhere."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from genrec.config.command_line import Composer
from genrec.doctor.data import SOURCES, check_data_root, check_data_sets, file_fault, named_data
from genrec.doctor.findings import Places
from tests.doctor.places import places_in, states, the


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Beauty with its items, and Frappe."""
    root = tmp_path / "data"
    for name in ("amazon_beauty/interactions.tsv.gz", "amazon_beauty/items.csv.gz", "frappe/frappe.csv.gz"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.Random(0).randbytes(20_000).hex()
        path.write_bytes(gzip.compress(noise.encode()))
    return places_in(tmp_path)


def test_the_names_are_those_of_the_config_and_every_source_is_known(tmp_path: Path, repository: Path) -> None:
    named = {data.option: data for data in named_data(tmp_path)}
    options = {path.stem for path in (repository / "conf" / "data").glob("*.yaml")} - {"folder", "large", "table"}
    assert named.keys() < options
    with Composer() as composer:
        for option in sorted(options):
            node = composer.compose([f"data={option}", f"data_root={tmp_path}"]).data
            if option not in named:
                assert node.path is None  # generated
                continue
            data = named[option]
            assert (str(data.folder), data.source["_target_"]) == (node.path, node.source._target_)
            assert data.kind in SOURCES and data.wanted.downloads == ("download" in node.source)


def test_whole_data_sets_are_in_order_and_others_come_with_a_way_to_them(places: Places) -> None:
    findings = list(check_data_sets(places))
    assert set(states(findings).values()) == {"ok"}
    assert the(findings, "amazon, amazon_beauty").found.startswith("2 files") and "frappe" in states(findings)
    absent = the(findings, "not here")
    assert "movielens_1m" in absent.found and "download=true" in absent.remedy
    assert "adult" in the(findings, "nor are").found and "frappe" not in the(findings, "nor are").found


@pytest.mark.parametrize("damage", ["cut", "empty", "plain"])
def test_a_damaged_file_is_a_problem(places: Places, damage: str) -> None:
    path = places.data_root / "frappe" / "frappe.csv.gz"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-200], "empty": b"", "plain": b"a,b\n1,2\n"}[damage])
    finding = the(check_data_sets(places), "frappe")
    assert finding.state == "problem" and str(path) in finding.found and finding.remedy.endswith(f"rm {path}")
    assert the(check_data_sets(places), "amazon, amazon_beauty").state == "ok"


def test_a_folder_without_its_main_file_is_told(places: Places) -> None:
    (places.data_root / "amazon_beauty" / "interactions.tsv.gz").unlink()
    finding = the(check_data_sets(places), "amazon, amazon_beauty")
    assert finding.state == "warning" and "interactions.*" in finding.found and "download=true" in finding.remedy


def test_what_is_missed_beside_the_main_file_is_told(places: Places) -> None:
    (places.data_root / "amazon_beauty" / "items.csv.gz").unlink()
    finding = the(check_data_sets(places), "amazon, amazon_beauty")
    assert finding.state == "warning" and "no titles and texts of items" in finding.found
    assert "meta_Beauty.json.gz" in finding.remedy


def test_a_download_that_stopped_is_told(places: Places) -> None:
    (places.data_root / "movielens_1m").mkdir()
    (places.data_root / "movielens_1m" / "ml-1m.zip.part").write_bytes(b"PK")
    finding = the(check_data_sets(places), "movielens_1m")
    assert finding.state == "warning" and "ml-1m.zip.part" in finding.found and "data=movielens_1m" in finding.remedy


def test_a_folder_of_data_sets_that_is_named_must_be_there(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENREC_DATA", raising=False)
    assert states(check_data_root(places)) == {"data_root": "ok"}
    absent = Places(places.runs_dir, places.data_root / "nowhere", places.cache_dir)
    assert states(check_data_root(absent)) == {"data_root": "ok"}
    monkeypatch.setenv("GENREC_DATA", str(absent.data_root))
    (finding,) = check_data_root(absent)
    assert finding.name == "GENREC_DATA" and finding.state == "problem" and "export GENREC_DATA=" in finding.remedy


def test_a_remote_folder_of_data_sets_is_not_looked_into(places: Places) -> None:
    remote = Places(places.runs_dir, Path("s3://bucket/sets"), places.cache_dir)
    (finding,) = check_data_root(remote)
    assert finding.state == "ok" and "is remote" in finding.found and list(check_data_sets(remote)) == []


def test_the_prepared_data_sets_are_whole(data_root: Path, tmp_path: Path) -> None:
    findings = list(check_data_sets(Places(tmp_path, data_root, tmp_path)))
    assert set(states(findings).values()) == {"ok"} and "amazon, amazon_beauty" in states(findings)


def test_parquet_is_known_by_both_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    assert file_fault(path) == ""
    path.write_bytes(b"PAR1" + b"x" * 100)
    assert "cut short" in file_fault(path)
    path.write_bytes(b"P")
    assert file_fault(path) != ""


def test_only_the_beginning_of_a_large_file_is_read(places: Places) -> None:
    path = places.data_root / "frappe" / "frappe.csv.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert "cut short" in file_fault(path) and file_fault(path / "x") != ""
    noise = random.Random(1).randbytes(2_000_000).hex()
    path.write_bytes(gzip.compress(noise.encode())[:-200])
    assert file_fault(path, limit=1000) == "" and "cut short" in file_fault(path, limit=10**9)
