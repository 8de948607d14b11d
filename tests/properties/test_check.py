"""Any value in any place of a config: it is taken, or refused in a sentence, and never anything else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from genrec.annotations import accepts
from genrec.config import instantiate
from genrec.config.command_line import Composer, command_faults
from genrec.config.root import check
from genrec.config.signatures import read_signature
from genrec.contracts import GenrecError
from tests.fuzz.overrides import leaves
from tests.properties.effort import effort

CHOICES = [
    [],
    ["model=sasrec", "trainer=advanced", "scheduler=cosine"],
    ["model=lightgcn", "data=synthetic_music", "split=ratio_per_user", "optimizer=sgd"],
    ["model=deepfm", "trainer=ctr", "data=synthetic_clicks", "optimizer=adam"],
    ["model=rqvae", "trainer=rqvae", "tokenizer=rqvae", "callbacks=weight_average"],
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["${seed}", "???", "a.b.C"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "_target_", "_partial_", "x y"]), inner, max_size=3),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as made:
        yield made


@cache
def plain_of(choices: tuple[str, ...]) -> Any:
    with Composer() as made:
        return OmegaConf.to_container(made.compose(choices), resolve=False)


def config_of(choices: list[str]) -> Any:
    return OmegaConf.create(plain_of(tuple(choices)))


@effort(80)
@given(choices=st.sampled_from(CHOICES), value=values, data=st.data())
def test_any_value_anywhere_is_taken_or_refused(choices: list[str], value: Any, data: Any) -> None:
    config = config_of(choices)
    key = data.draw(st.sampled_from([name for name, _ in leaves(tuple(choices))]))
    try:
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except Exception:  # what OmegaConf itself does not hold
        return
    for fault in check(config):
        assert fault.key and "Traceback" not in str(fault) and " object at 0x" not in str(fault)


@pytest.mark.parametrize("choices", CHOICES, ids=lambda words: " ".join(words) or "defaults")
def test_defaults_have_no_fault(composer: Composer, choices: list[str]) -> None:
    assert command_faults(composer, choices) == []


@effort(40)
@given(choices=st.sampled_from(CHOICES), data=st.data())
def test_what_a_signature_allows_is_built_or_refused(choices: list[str], data: Any) -> None:
    """Of the parts of a config that build without data: what the check lets through, no constructor dies of."""
    config = config_of(choices)
    section = data.draw(st.sampled_from(["trainer", "scheduler", "tokenizer", "encoder", "hardware"]))
    node = config.get(section)
    if node is None or node.get("_partial_"):
        return
    parameters = read_signature(node._target_).parameters
    names = sorted(set(node) & set(parameters))
    name = data.draw(st.sampled_from(names))
    value = data.draw(st.one_of(st.sampled_from([None, True, 0, 1, 2, 0.5, 1.0, -1, [], [1], "a", ""]), scalars))
    node[name] = value
    allowed = accepts(parameters[name].annotation, value)
    faults = [fault for fault in check(config) if fault.key.startswith(f"{section}.{name}")]
    assert allowed or faults or value in ("${seed}", "???")
    if faults:
        return
    try:
        instantiate(node, _convert_="all")
    except GenrecError as error:
        assert str(error)


@effort(40)
@given(choices=st.sampled_from(CHOICES), data=st.data())
def test_a_misspelt_key_is_told_with_the_right_one(composer: Composer, choices: list[str], data: Any) -> None:
    known = [
        key for key, _ in leaves(tuple(choices)) if len(key.rpartition(".")[2]) > 4 and not key.startswith("data.")
    ]
    key = data.draw(st.sampled_from([key for key in known if "_target_" not in key and "_partial_" not in key]))
    head, dot, last = key.rpartition(".")
    place = data.draw(st.integers(1, len(last) - 2))
    wrong = f"{head}{dot}{last[:place]}{last[place + 1 :]}"
    if wrong in dict(leaves(tuple(choices))):
        return
    (fault, *_) = command_faults(composer, [*choices, f"{wrong}=1"])
    assert "no such key" in fault.problem and fault.key == wrong
    assert fault.nearest is not None, str(fault)
