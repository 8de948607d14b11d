"""Search spaces: Hydra's syntax as domains, conditions, and every mistake as a sentence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from genrec.config.search_space import Choice, SearchSpace, SpaceError, Span, read_space


def space_of(
    *words: str, params: dict[str, str] | None = None, conditions: dict[str, Any] | None = None, **config: Any
) -> tuple[SearchSpace, list[str]]:
    parser = OverridesParser.create()
    declared = parser.parse_overrides([f"{key}={value}" for key, value in (params or {}).items()])
    return read_space(declared, parser.parse_overrides(list(words)), conditions, config.get)


def fault_of(*words: str, **options: Any) -> str:
    with pytest.raises(SpaceError) as raised:
        space_of(*words, **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("1,2", Choice(("1", "2"))),
        ("choice(adam,sgd)", Choice(("adam", "sgd"))),
        ("choice(one)", Choice(("one",))),
        ("true,false", Choice(("True", "False"))),
        ("[1,2],[3]", Choice(("[1,2]", "[3]"))),
        ("range(1,8)", Span(1, 7, whole=True, step=1)),
        ("range(1,8,3)", Span(1, 7, whole=True, step=3)),
        ("range(8,1,-3)", Span(2, 8, whole=True, step=3)),
        ("shuffle(range(1,8))", Span(1, 7, whole=True, step=1)),
        ("range(0.1,0.35,0.1)", Span(0.1, 0.3, step=0.1)),
        ("interval(1,5)", Span(1.0, 5.0)),
        ("int(interval(1,5))", Span(1, 5, whole=True)),
        ("tag(log,interval(1e-4,1e-2))", Span(1e-4, 1e-2, log=True)),
        ("tag(log,int(interval(16,512)))", Span(16, 512, whole=True, log=True)),
        ("tag(log,range(1,9))", Span(1, 8, whole=True, log=True)),
    ],
)
def test_sweep_syntax_becomes_a_domain(text: str, domain: Choice | Span) -> None:
    (parameter,) = space_of(f"a.b={text}")[0].parameters
    assert (parameter.key, parameter.domain) == ("a.b", domain)
    assert type(parameter.domain) is type(domain)


def test_an_interval_is_of_real_numbers_unless_it_says_int() -> None:
    (real,), (whole,) = (
        space_of("a=interval(0,1)")[0].parameters,
        space_of("a=int(interval(0,1))")[0].parameters,
    )
    assert isinstance(real.domain, Span) and isinstance(whole.domain, Span)
    assert (real.domain.whole, whole.domain.whole) == (False, True)


def test_numbers_are_spelled_short_and_stay_within_their_range() -> None:
    domain = Span(0.12345612, 0.98765478)
    assert domain.text(0.3333333333) == "0.333333"
    assert domain.text(0.12345612) == "0.12345612" and domain.text(0.98765478) == "0.98765478"
    assert Span(1, 9, whole=True).text(3.0) == "3"


def test_the_command_line_replaces_and_fixes_what_the_config_varies() -> None:
    params = {"a": "1,2", "b": "1,2", "c": "7"}
    space, fixed = space_of("a=5", "b=interval(0,1)", "+d=1,2", "~e", params=params)
    assert [(parameter.key, parameter.element) for parameter in space.parameters] == [("b", "b"), ("d", "+d")]
    assert fixed == ["a=5", "c=7", "~e"]


def test_a_parameter_exists_only_where_its_condition_holds() -> None:
    space, _ = space_of("patience=2,3", "trainer=simple,advanced", conditions={"patience": "trainer=advanced"})
    assert space.grid() == [
        ["trainer=simple"],
        ["trainer=advanced", "patience=2"],
        ["trainer=advanced", "patience=3"],
    ]


def test_conditions_may_form_chains_and_all_of_a_list_must_hold() -> None:
    space, _ = space_of(
        "c=1,2", "b=x,y", "a=on,off", "d=p,q",
        conditions={"b": "a=on", "c": ["b=y", "d=[q]"]},
    )  # fmt: skip
    expected = set()
    for a, b, c, d in itertools.product(("on", "off"), ("x", "y"), ("1", "2"), ("p", "q")):  # an independent reference
        has_b = a == "on"
        has_c = has_b and b == "y" and d == "q"
        expected.add(frozenset({f"a={a}", f"d={d}", *([f"b={b}"] if has_b else []), *([f"c={c}"] if has_c else [])}))
    found = [frozenset(trial) for trial in space.grid()]
    assert set(found) == expected and len(found) == len(expected)


@pytest.mark.parametrize(
    ("words", "config", "exists"),
    [
        (["trainer=advanced"], {}, True),
        (["trainer=simple"], {}, False),
        ([], {"trainer": "advanced"}, True),
        ([], {"trainer": "simple"}, False),
    ],
)
def test_a_condition_may_look_at_what_is_not_varied(words: list[str], config: dict[str, str], exists: bool) -> None:
    space, fixed = space_of(
        "lr=1,2", "patience=2,3", *words, conditions={"patience": "trainer=advanced"}, **dict[str, Any](config)
    )
    assert any("patience=2" in trial for trial in space.grid()) is exists
    assert fixed == words


def test_a_fixed_value_with_a_condition_is_given_only_where_that_holds() -> None:
    space, fixed = space_of("trainer=a,b", "patience=3", conditions={"patience": "trainer=b"})
    assert space.grid() == [["trainer=a"], ["trainer=b", "patience=3"]] and fixed == []


def test_conditions_compare_values_and_not_spellings() -> None:
    space, _ = space_of("lr=1e-3,0.1", "on=true,false", "x=1,2", conditions={"x": ["lr=0.001", "on=True"]})
    assert [trial for trial in space.grid() if len(trial) == 3] == [
        ["lr=0.001", "on=True", "x=1"],
        ["lr=0.001", "on=True", "x=2"],
    ]


@pytest.mark.parametrize("limit", [1, 100])
def test_examples_hold_every_choice_and_both_ends(limit: int) -> None:
    words = ("c=interval(0,1)", "b=x,y,z", "a=range(1,9)")
    space, _ = space_of(*words, conditions={"c": "b=z", "b": "a=8"})
    examples = space.examples(limit)
    seen = {override for trial in examples for override in trial}
    assert seen >= {"a=1", "a=8", "b=x", "b=y", "b=z", "c=0.0", "c=1.0"}
    assert all("a=8" in trial and "b=z" in trial for trial in examples if {"c=0.0", "c=1.0"} & set(trial))


def test_a_grid_has_every_point_once() -> None:
    space, _ = space_of("a=range(1,4)", "b=range(0.1,0.35,0.1)", "c=x,y")
    points = space.grid()
    assert len(points) == len({tuple(point) for point in points}) == 3 * 3 * 2
    assert points[0] == ["a=1", "b=0.1", "c=x"] and points[-1] == ["a=3", "b=0.3", "c=y"]


def test_a_grid_of_an_interval_is_refused() -> None:
    with pytest.raises(SpaceError, match="lr: a grid needs values to count"):
        space_of("lr=interval(0,1)", "a=1,2")[0].grid()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=tag(log,interval(0,1))"], "a=tag(log,interval(0,1)): a log scale begins above 0"),
        (["a=tag(log,interval(-1,1))"], "begins above 0"),
        (["a=interval(1,1)"], "from a lower to a higher number"),
        (["a=interval(2,1)"], "from a lower to a higher number"),
        (["a=interval(0,inf)"], "from a lower to a higher number"),
        (["a=range(3,3)"], "the range is empty"),
        (["a=range(5,3)"], "the range is empty"),
        (["a=tag(log,range(2,64,2))"], "one by one"),
        (["a=tag(lgo,interval(1,2))"], "no tag 'lgo'"),
        (["a=tag(log,choice(1,2))"], "a choice has no scale"),
        (["a=1,2,1"], "1 is listed twice"),
        (["hydra.run.dir=a,b"], "cannot be searched"),
        (["a=1"], "nothing to search"),
        ([], "nothing to search"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(words: list[str], expected: str) -> None:
    assert expected in fault_of(*words)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"patiens": "trainer=a"}, ["conditions.patiens: no such parameter", "Did you mean patience?"]),
        ({"patience": "trainer"}, ["'trainer=advanced'"]),
        ({"patience": "trainer=a,b"}, ["'trainer=[simple,advanced]'"]),
        ({"patience": 3}, ["a condition is written"]),
        ({"patience": "trainr=a"}, ["neither a parameter nor a key", "Did you mean trainer?"]),
        ({"patience": "lr=0.5"}, ["lr is any number of a range"]),
        ({"patience": "trainer=advanced"}, ["trainer is never advanced", "It is one of: a, b."]),
        ({"patience": "trainer=a", "trainer": "patience=2"}, ["waits for another"]),
        ({"patience": "patience=2"}, ["waits for another"]),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(conditions: dict[str, Any], expected: list[str]) -> None:
    text = fault_of("patience=2,3", "trainer=a,b", "lr=interval(0,1)", conditions=conditions)
    assert [word for word in expected if word not in text] == []


def test_all_faults_are_told_at_once() -> None:
    text = fault_of("a=interval(2,1)", "b=1,1", conditions={"c": "a=1"})
    assert "3 faults" in text and all(word in text for word in ("a=interval", "b=1,1", "conditions.c"))
