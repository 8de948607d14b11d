"""Where trials are kept, and what is said where that cannot be."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import optuna
import pytest

from genrec.contracts import GenrecError
from genrec.sweeps.storage import load_optuna, open_storage, storage_url


def test_a_sweep_keeps_its_trials_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage_url(None, Path("sweep")) == f"sqlite:///{tmp_path}/sweep/study.db"
    assert storage_url("mysql://host/db", Path("sweep")) == "mysql://host/db"


@pytest.mark.parametrize("address", ["sqlite:///{folder}/a.db", "journal:{folder}/a.log"])
def test_trials_outlive_the_process(tmp_path: Path, address: str) -> None:
    url = address.format(folder=tmp_path)
    study = optuna.create_study(study_name="s", storage=open_storage(url))
    study.tell(study.ask(), 1.5)
    assert optuna.load_study(study_name="s", storage=open_storage(url)).trials[0].value == 1.5


@pytest.mark.parametrize("url", ["nonsense", "oracle+nothing://host/db", "sqlite:////there/is/no/folder/x.db"])
def test_an_address_that_cannot_be_opened_is_told(url: str) -> None:
    with pytest.raises(GenrecError, match=r"hydra.sweeper.storage=.* cannot be opened: .* or null"):
        open_storage(url)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(GenrecError, match=r"pip install 'genrec\[sweep\]'"):
        load_optuna()
