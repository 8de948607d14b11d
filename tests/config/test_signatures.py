"""Static signatures: known answers on small modules, and agreement with ``inspect`` on every target of conf/."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from genrec.annotations import accepts, describe
from genrec.config import conf_dir
from genrec.config.signatures import read_signature
from genrec.config.source_tree import TargetNotFoundError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package of a fresh name on sys.path; importing it is an error, so only its source can have been read."""
    name = "pkg_" + request.node.name.replace("[", "_").replace("]", "").replace("-", "_").replace(".", "_")
    root = tmp_path / name
    root.mkdir()
    (root / "__init__.py").write_text(
        "from .inner import Renamed as Public\nfrom .inner import *\nraise RuntimeError('imported')\n"
    )
    (root / "inner.py").write_text(
        "from __future__ import annotations\n"
        "from collections.abc import Sequence\n"
        "from dataclasses import KW_ONLY, dataclass, field\n"
        "from pathlib import Path\n"
        "from typing import Annotated, ClassVar, Literal, Optional, Union\n"
        "from annotated_types import Ge, Gt, Lt\n"
        "from pydantic import Field\n"
        "from torch import Tensor\n"
        "Where = Union[str, Path]\n"
        "class Renamed:\n"
        "    def __init__(self, spec, width: int = 3, *, rate: float | Tensor = 0.1, kind: Literal['a', 'b'] = 'a',\n"
        "                 where: Optional[Where] = None, net: Tensor | None = None,\n"
        "                 sizes: Sequence[int] = (1,)) -> None: ...\n"
        "class Child(Renamed):\n"
        "    pass\n"
        "Alias = Child\n"
        "@dataclass(kw_only=True)\n"
        "class Base:\n"
        "    epochs: int = 3\n"
        "    count: ClassVar[int] = 0\n"
        "    hidden: int = field(default=1, init=False)\n"
        "@dataclass(kw_only=True)\n"
        "class Leaf(Base):\n"
        "    patience: Annotated[int, Ge(0)]\n"
        "    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1\n"
        "    lr: Annotated[float, Field(gt=0)] = 0.1\n"
        "    names: list[str] = field(default_factory=list)\n"
        "@dataclass\n"
        "class Mixed:\n"
        "    first: int\n"
        "    _: KW_ONLY\n"
        "    second: int\n"
        "def build(a, b: bool = True, **rest) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_class_is_read_through_reexports_without_importing_it(package: str) -> None:
    signature = read_signature(f"{package}.Public")
    assert list(signature.parameters) == ["spec", "width", "rate", "kind", "where", "net", "sizes"]
    assert [name for name, item in signature.parameters.items() if item.required] == ["spec"]
    assert signature.parameters["rate"].keyword_only and not signature.parameters["width"].keyword_only
    assert package not in sys.modules


def test_star_imports_aliases_and_inherited_constructors_are_followed(package: str) -> None:
    expected = list(read_signature(f"{package}.Public").parameters)
    for name in ("Child", "Alias", "inner.Child"):
        assert list(read_signature(f"{package}.{name}").parameters) == expected


def test_dataclass_fields_come_in_order_of_inheritance(package: str) -> None:
    signature = read_signature(f"{package}.inner.Leaf")
    assert list(signature.parameters) == ["epochs", "patience", "dropout", "lr", "names"]
    assert [name for name, item in signature.parameters.items() if item.required] == ["patience"]
    assert all(item.keyword_only for item in signature.parameters.values())
    mixed = read_signature(f"{package}.inner.Mixed").parameters
    assert not mixed["first"].keyword_only and mixed["second"].keyword_only


def test_a_function_with_keywords_is_open(package: str) -> None:
    signature = read_signature(f"{package}.inner.build")
    assert signature.open and list(signature.parameters) == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("width", [1, 0], ["1", 2.5, True, None, "ten"]),
        ("rate", [0.5, 1], ["fast", True, None, [0.5]]),
        ("kind", ["a", "b"], ["c", 1]),
        ("where", ["x", None], [3]),
        ("net", [None, "anything", 3], []),
        ("sizes", [[1, 2], []], [1, [2.5], ["a"]]),
        ("spec", [object(), 1], []),
    ],
)
def test_types_are_strict_about_scalars(package: str, key: str, good: list[Any], bad: list[Any]) -> None:
    annotation = read_signature(f"{package}.Public").parameters[key].annotation
    assert [accepts(annotation, value) for value in good] == [True] * len(good)
    assert [accepts(annotation, value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [("patience", [0, 3], [-1]), ("dropout", [0, 0.99], [1.0, -0.1]), ("lr", [1e-9], [0, -1])],
)
def test_bounds_of_annotated_are_checked(package: str, key: str, good: list[Any], bad: list[Any]) -> None:
    annotation = read_signature(f"{package}.inner.Leaf").parameters[key].annotation
    assert all(accepts(annotation, value) for value in good)
    assert not any(accepts(annotation, value) for value in bad)


def test_what_is_allowed_is_said_in_words(package: str) -> None:
    parameters = read_signature(f"{package}.inner.Leaf").parameters
    assert describe(parameters["dropout"].annotation) == "a number of at least 0 and below 1"
    assert describe(parameters["names"].annotation) == "a list, each a string"
    assert describe(int | None) == "a whole number, or null"
    assert describe(Literal["a", "b"]) == "one of a, b"


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ("torch.optim.AdmW", "torch.optim.AdamW"),
        ("genrec.modls.tiger.Tiger", "genrec.models.tiger.Tiger"),
        ("genrec.models.tigr.Tiger", "genrec.models.tiger.Tiger"),
        ("genrec.models.tiger.Tigr", "genrec.models.tiger.Tiger"),
        ("nowhere_at_all.Thing", None),
    ],
)
def test_a_target_that_does_not_exist_names_the_nearest(target: str, nearest: str | None) -> None:
    with pytest.raises(TargetNotFoundError) as caught:
        read_signature(target)
    assert caught.value.nearest == nearest


def test_what_is_made_at_run_time_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_at_run_time.py").write_text(
        "def make():\n"
        "    class Thing:\n"
        "        def __init__(self, width: int = 1) -> None: ...\n"
        "    return Thing\n"
        "Thing = make()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    signature = read_signature("made_at_run_time.Thing")
    assert not accepts(signature.parameters["width"].annotation, "wide")


def test_torch_and_lightning_are_read_but_never_imported() -> None:
    code = (
        "import sys\nfrom genrec.config.signatures import read_signature\n"
        "a = read_signature('torch.optim.AdamW'); assert 'lr' in a.parameters and not a.open\n"
        "b = read_signature('pytorch_lightning.loggers.TensorBoardLogger'); assert 'save_dir' in b.parameters\n"
        "c = read_signature('pytorch_lightning.loggers.WandbLogger'); assert c.open\n"
        "assert not {'torch', 'pytorch_lightning', 'torch_geometric'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _targets() -> list[str]:
    found: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if "_target_" in node:
                found.add(node["_target_"])
            for value in node.values():
                collect(value)

    # A launcher is looked at by Hydra alone, and lies in an extra that need not be installed.
    for path in set(conf_dir().rglob("*.yaml")) - set((conf_dir() / "hydra" / "launcher").glob("*.yaml")):
        collect(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
    return sorted(found)


@pytest.mark.parametrize("target", _targets())
def test_static_and_runtime_signatures_agree(target: str) -> None:
    from hydra.utils import get_object

    real = inspect.signature(get_object(target)).parameters.values()
    named = [item for item in real if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)]
    static = read_signature(target)
    assert list(static.parameters) == [item.name for item in named]
    assert {name for name, item in static.parameters.items() if item.required} == {
        item.name for item in named if item.default is item.empty
    }
    assert static.open == any(item.kind is item.VAR_KEYWORD for item in real)
