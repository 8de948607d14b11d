from __future__ import annotations

import pytest

from genrec.contracts import GenrecError
from genrec.report.arguments import count, folder, one_of, take_options, truth


def taken(*words: str) -> tuple[dict[str, str], list[str]]:
    return take_options(words, ("limit", "runs_dir"), ("dry_run",), {"-n": "dry_run"})


def test_both_spellings_are_options_and_the_rest_keeps_its_order() -> None:
    expected = ({"limit": "5", "runs_dir": "x"}, ["a", "seed=1", "b<2"])
    assert taken("a", "limit=5", "seed=1", "runs_dir=x", "b<2") == expected
    assert taken("--limit", "5", "a", "seed=1", "--runs-dir=x", "b<2") == expected


def test_flags_stand_alone_only_after_dashes() -> None:
    assert taken("--dry-run")[0] == taken("-n")[0] == taken("dry_run=true")[0] == {"dry_run": "true"}
    with pytest.raises(GenrecError, match="'dry_run' needs a value: dry_run=true"):
        taken("dry_run")


@pytest.mark.parametrize("words", [["limit"], ["--limit"]])
def test_a_value_is_needed(words: list[str]) -> None:
    with pytest.raises(GenrecError, match="needs a value: limit="):
        taken(*words)


def test_unknown_options_are_answered_with_the_nearest() -> None:
    with pytest.raises(GenrecError, match=r"'--limt=3' is not known here. Did you mean limit=\? The options are limit"):
        taken("--limt=3")
    with pytest.raises(GenrecError, match="'-x' is not known here"):
        taken("-x")


def test_values_are_checked() -> None:
    assert truth({"a": "True"}, "a") and not truth({"a": "false"}, "a") and not truth({}, "a")
    assert (count({}, "n", 3), count({"n": "7"}, "n", 3), count({"n": "all"}, "n", 3)) == (3, 7, None)
    assert one_of({}, "format", ("table", "csv")) == "table"
    assert one_of({"format": "csv"}, "format", ("table", "csv")) == "csv"
    assert folder({}, "runs_dir", "outputs").as_posix() == "outputs"
    with pytest.raises(GenrecError, match="a=yes: give true or false"):
        truth({"a": "yes"}, "a")
    for wrong in ("0", "-1", "many"):
        with pytest.raises(GenrecError, match=f"n={wrong}: give a whole number of 1 or more, or all"):
            count({"n": wrong}, "n", 3)
    with pytest.raises(GenrecError, match=r"format=jsn: the choices are table, json. Did you mean json\?"):
        one_of({"format": "jsn"}, "format", ("table", "json"))
