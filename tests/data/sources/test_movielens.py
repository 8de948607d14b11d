from __future__ import annotations

import io
import zipfile

import pytest

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.sources.movielens import VERSIONS, MovieLensSource
from genrec.data.splits import LeaveOneOut

RATINGS = [
    (1, 10, "4.0", 300),
    (1, 20, "3.0", 100),
    (1, 30, "5.0", 200),
    (2, 30, "1.0", 50),
    (2, 10, "2.0", 60),
    (2, 20, "5.0", 70),
]
CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS),
    "movies.csv": "movieId,title,genres\n"
    '10,"Amélie, (2001)",Comedy|Romance\n20,Heat,(no genres listed)\n30,M,War\n99,Z,War\n',
}
DAT = {
    "ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS),
    "movies.dat": "10::Amélie, (2001)::Comedy|Romance\n20::Heat::(no genres listed)\n30::M::War\n99::Z::War\n",
}


def flags(*numbers):
    return "|".join("1" if genre in numbers else "0" for genre in range(19))


TAB = {
    "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS),
    "u.item": f"10|Amélie, (2001)|||u|{flags(5, 14)}\n20|Heat|||u|{flags()}\n"
    f"30|M|||u|{flags(17)}\n99|Z|||u|{flags(17)}\n",
}
ENCODING = {"movies.dat": "latin-1", "u.item": "latin-1"}
ARCHIVES = {"latest-small": CSV, "20m": CSV, "1m": DAT, "100k": TAB}


def check(source):
    dataset = Dataset(source, LeaveOneOut())
    assert dataset.log.frame()["item_id"].to_list() == [20, 30, 10, 30, 10, 20]
    assert dataset.log.extras["rating"].tolist() == [3, 5, 4, 1, 2, 5]
    assert dataset.titles == ["Amélie, (2001)", "Heat", "M"]
    assert dataset.texts == ["Amélie, (2001). Comedy, Romance", "Heat", "M. War"]
    assert dataset.report.counts["unused_items"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_every_archive_is_fetched_and_read(server, tmp_path, version):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in ARCHIVES[version].items():
            archive.writestr(f"{VERSIONS[version]}/{name}", text.encode(ENCODING.get(name, "utf-8")))
    server.files[f"/{VERSIONS[version]}.zip"] = content.getvalue()
    options = {"path": str(tmp_path / "ml"), "version": version, "k_core": 1, "progress": False}
    check(MovieLensSource(**options, download=True, base_url=server.url))
    check(MovieLensSource(**options))  # and from the folder alone
    assert len(server.requests) == 1


def test_min_rating_and_k_core(tmp_path):
    for name, text in CSV.items():
        (tmp_path / name).write_text(text)
    data = MovieLensSource(path=str(tmp_path), min_rating=3, k_core=1).load()
    assert (len(data.log), data.report.counts["rows_below_min_rating"]) == (4, 2)
    data = MovieLensSource(path=str(tmp_path), k_core=2).load()
    assert len(data.log) == 6
    table = data.log.item_table  # "no genres" is no genre that would tie items to each other
    assert table is not None and set(table["genres"].to_list()) <= {"Comedy|Romance", "War", None}


def test_unknown_version_and_missing_folder(tmp_path):
    with pytest.raises(GenrecError, match="latest-small, 100k, 1m, 20m"):
        MovieLensSource(path="x", version="2m")
    with pytest.raises(GenrecError, match=r"ratings\.csv.*download=true"):
        MovieLensSource(path=str(tmp_path)).load()


def test_latest_small(real):
    dataset = Dataset(MovieLensSource(path=str(real("movielens_latest_small"))), LeaveOneOut())
    assert (dataset.num_users, dataset.num_items, len(dataset.log)) == (610, 3650, 90_274)
    assert dataset.titles[0] == "Toy Story (1995)"
