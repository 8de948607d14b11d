"""Settings are checked against their own annotations, whoever makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import MinLen
from omegaconf import OmegaConf

from genrec.annotations import Count, NotNegative, Positive, Rate, Share, check_arguments, check_fields
from genrec.contracts import GenrecError


@dataclass(kw_only=True)
class Parent:
    """Settings."""

    steps: Count = 1
    rate: Rate | None = None
    mode: Literal["min", "max"] = "min"
    sizes: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [1])
    helper: Any = None

    def __post_init__(self) -> None:
        check_fields(self, "thing")


@dataclass(kw_only=True)
class Child(Parent):
    """Settings that add to and change those of their parent."""

    weight: NotNegative = 0.0
    steps: Annotated[int, MinLen(0)] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "thing.steps=0: expected a whole number of at least 1."),
        ({"steps": 1.5}, "thing.steps=1.5: expected a whole number of at least 1."),
        ({"steps": True}, "thing.steps=true: expected a whole number"),
        ({"rate": 1.0}, "thing.rate=1.0: expected a number of at least 0 and below 1, or null."),
        ({"rate": float("nan")}, "thing.rate=nan: expected"),
        ({"mode": "mean"}, "thing.mode=mean: expected one of min, max."),
        ({"sizes": []}, "thing.sizes=[]: expected a list with at least 1 entry"),
        ({"sizes": [3, 0]}, "thing.sizes=[3,0]: expected a list"),
        ({"sizes": "12"}, "thing.sizes=12: expected a list"),
    ],
)
def test_a_field_out_of_its_range_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError) as error:
        Parent(**given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "given",
    [
        {"steps": np.int64(3), "rate": np.float32(0.5), "sizes": (1, 2)},
        {"sizes": OmegaConf.create([4, 5])},
        {"helper": object()},
        {"rate": 0},
    ],
)
def test_numbers_of_numpy_and_sequences_of_any_kind_are_taken(given: dict[str, Any]) -> None:
    assert vars(Parent(**given)).items() >= given.items()


def test_a_child_is_checked_by_its_own_fields_and_its_parent_s() -> None:
    assert Child(steps=None).steps is None
    for given in ({"weight": -1.0}, {"rate": 2.0}):
        with pytest.raises(GenrecError, match=f"thing.{next(iter(given))}="):
            Child(**given)  # pyright: ignore[reportArgumentType]


def test_annotations_that_do_not_resolve_check_nothing_of_their_class_and_all_of_its_parent() -> None:
    class Elsewhere: ...

    @dataclass(kw_only=True)
    class Local(Parent):
        other: Elsewhere | None = None
        more: Count = 1

    assert Local(more=0).more == 0
    with pytest.raises(GenrecError, match=r"thing\.steps"):
        Local(steps=0)


def test_arguments_of_a_function() -> None:
    def build(scale: Positive, share: Share = 1.0, widths: Sequence[Count] = ()) -> None:
        check_arguments(build, {"scale": scale, "share": share, "widths": widths}, "model")

    build(0.5, share=0)
    with pytest.raises(GenrecError, match=r"^model\.scale=0: expected a number greater than 0\.$"):
        build(0)
    with pytest.raises(GenrecError, match=r"^model\.widths=\[8,0\]: expected a list, each a whole number"):
        build(1, widths=[8, 0])
