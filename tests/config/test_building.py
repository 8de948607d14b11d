"""Objects from config nodes: what a constructor says to a user arrives as it was said."""

from typing import Any

import pytest
from hydra.errors import InstantiationException

from genrec.config import instantiate
from genrec.config.targets import VARIABLE
from genrec.contracts import GenrecError

_TOKENIZER = "genrec.tokenizers.rqkmeans.RQKMeans"


def test_an_object_is_built_as_hydra_builds_it() -> None:
    assert instantiate({"_target_": _TOKENIZER, "num_levels": 2}).num_levels == 2
    assert instantiate({"_target_": _TOKENIZER, "_partial_": True})(num_levels=2).num_levels == 2


@pytest.mark.parametrize("nested", [False, True])
def test_a_mistake_of_the_user_keeps_its_own_words(nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    node: dict[str, Any] = {"_target_": _TOKENIZER, "num_levels": 0}
    monkeypatch.setenv(VARIABLE, "builtins")
    with pytest.raises(GenrecError, match=r"^tokenizer\.num_levels must be at least 1"):
        instantiate({"_target_": "builtins.dict", "inner": node} if nested else node)


def test_a_fault_of_the_code_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fractions")
    with pytest.raises(InstantiationException):
        instantiate({"_target_": "fractions.Fraction", "numerator": "no number"})
