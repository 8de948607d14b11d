"""The typed root of the config, and ``check``: ``_target_`` nodes against the signatures they name, all faults at once.

Nothing here imports torch, Lightning or torch-geometric: a mistake is answered before they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Le, MinLen

from genrec.config.faults import Fault, report
from genrec.contracts import GenrecError
from genrec.remote.addresses import is_remote

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from genrec.config.signatures import Signature

SCHEMA_NAME = "genrec_schema"
_RESERVED: dict[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_args_": list,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
}
_GROUP = "genrec.trainers.parameter_groups.ParameterGroup"
_RUNTIME_FOLDER = "${hydra:runtime.output_dir}"


@dataclass
class RootConfig:
    """Every key that may stand at the top of a config; what each does is written in ``conf/config.yaml``."""

    model: Any = None
    trainer: Any = None
    data: Any = None
    split: Any = None
    encoder: Any = None
    tokenizer: Any = None
    optimizer: Any = None
    scheduler: Any = None
    hardware: Any = None
    logger: Any = None
    callbacks: Any = None
    baselines: Any = None
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 42  # what NumPy takes
    seeds: Any = None  # a number or a list; the command line turns it into a multirun before Hydra sees it
    monitor: str | None = None
    k_values: Annotated[list[Annotated[int, Gt(0)]], MinLen(1)] = field(default_factory=lambda: [5, 10, 20])
    filter_seen: bool | None = None
    output_dir: str = _RUNTIME_FOLDER
    runs_dir: str = "outputs"
    data_root: str = "data"
    cache_dir: str = "outputs/cache"
    resume: str | None = None
    allow_targets: list[str] = field(default_factory=list)
    progress: bool = True


NEEDED_NODES = ("model", "trainer", "data", "split", "encoder", "tokenizer", "optimizer", "hardware")

_MAPPINGS = ("baselines", "logger", "callbacks")


def conf_dir() -> Path:
    """The folder of config groups: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").exists():
            return folder
    raise GenrecError(f"The config groups are missing: there is no conf/config.yaml in {package} or {package.parent}.")


def register_schema() -> None:
    """Makes the typed root known to Hydra; calling it again changes nothing.

    The schema is left open, so that a user's own groups may stand beside ours; ``check`` refuses any other unknown key.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(RootConfig)
    OmegaConf.set_struct(schema, False)
    ConfigStore.instance().store(name=SCHEMA_NAME, node=schema)


def preflight(argv: Sequence[str]) -> int | None:
    """Answers ``--help`` (0) and mistakes on the command line (2); None means that the run may start."""
    from genrec.config.command_line import preflight

    return preflight(argv)


def compose_config(
    overrides: Sequence[str] = (), config_dir: str | Path | None = None, *, output_dir: str | Path = "outputs/composed"
) -> DictConfig:
    """The config that overrides give, without a running Hydra; ``config_dir`` is what ``--config-dir`` would name."""
    from genrec.config.command_line import Composer

    with Composer(config_dir) as composer:
        config = composer.compose(overrides)
    if raw_value(config, "output_dir") == _RUNTIME_FOLDER:
        config.output_dir = str(output_dir)
    return config


def raw_value(config: DictConfig, key: str) -> Any:
    """A value as it is written, interpolations unresolved."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=False)
    return plain.get(key)


def check_or_raise(config: DictConfig) -> None:
    """Raises ``GenrecError`` with all faults of a config."""
    from hydra.core.hydra_config import HydraConfig

    groups = HydraConfig.get().runtime.choices if HydraConfig.initialized() else ()
    faults = check(config, [str(name) for name in groups])
    if faults:
        raise GenrecError(report(faults))


def check(config: DictConfig, groups: Iterable[str] = ()) -> list[Fault]:
    """All faults of a composed config. ``groups`` are extra keys allowed at the root (a user's own config groups)."""
    from genrec.config.plain import PlainConfig
    from genrec.config.targets import named_by_user, target_faults

    plain = PlainConfig(config)
    allowed = named_by_user(config)
    faults = [*plain.faults, *target_faults("", plain.values, allowed), *_check_root(plain.values, set(groups))]
    faults += place_faults({key: plain.values.get(key) for key in ("output_dir", "runs_dir", "cache_dir")})
    checker = _Checker(plain.interpolations, {fault.key for fault in faults}, allowed)
    for key, value in plain.values.items():
        if key != "hydra":
            faults += checker.node(key, value, curried=key == "model" or key.startswith("baselines"))
    seen = {fault.key for fault in faults}
    faults += [fault for fault in _check_rules(plain.values) if fault.key not in seen]
    return list(dict.fromkeys(faults))


def node_faults(place: str, node: dict[str, Any], allowed: Sequence[str] = ()) -> Iterator[Fault]:
    """Faults of one node with a ``_target_``, and of the nodes in it, outside of the root."""
    return _Checker({}, set(), allowed).node(place, node)


def place_faults(places: Mapping[str, Any]) -> Iterator[Fault]:
    """Folders that are written to lie on this machine: runs lock their files, continue them and map them."""
    for key, place in places.items():
        if is_remote(place) and not place.lower().startswith("file://"):
            allowed = "Name one, and copy finished runs: aws s3 sync, gsutil rsync, azcopy ..."
            yield Fault(key, "a folder of this machine is needed; data are read from addresses", place, None, allowed)


def _check_root(values: dict[str, Any], groups: set[str]) -> Iterator[Fault]:
    from genrec.annotations import accepts, as_yaml, checkable, describe
    from genrec.config.signatures import nearest

    hints = {name: checkable(hint) for name, hint in get_type_hints(RootConfig, include_extras=True).items()}
    for key, value in values.items():
        if key in hints and not (_builds_object(value) or accepts(hints[key], value)):
            yield Fault(key, f"expected {describe(hints[key])}", as_yaml(value))
        elif key not in hints and key not in groups and key != "hydra":
            yield Fault(key, "no such key", as_yaml(value), nearest(key, hints), f"Known keys: {', '.join(hints)}.")
    for key in _MAPPINGS:
        if not isinstance(values.get(key), dict | None):
            yield Fault(key, "expected a mapping of names to nodes, or null", as_yaml(values[key]))
    yield from _optional_faults(values)
    for key in NEEDED_NODES:
        if not isinstance(values.get(key), dict):
            yield Fault(key, "one option of this group must be chosen (--help lists them)", as_yaml(values.get(key)))
        elif "_target_" not in values[key]:
            yield Fault(f"{key}._target_", "the class to build is not named. Choose an option of the group again")


def _optional_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Nodes that may be left out, such as ``scheduler`` and each of ``callbacks``: where they are given, they name a
    class."""
    from genrec.annotations import as_yaml
    from genrec.config.plain import UNRESOLVED

    nodes = {"scheduler": values.get("scheduler")}
    for key in _MAPPINGS:
        entries = values.get(key)
        nodes |= {f"{key}.{name}": node for name, node in entries.items()} if isinstance(entries, dict) else {}
    for place, node in nodes.items():
        if not (node is None or node is UNRESOLVED or (isinstance(node, dict) and "_target_" in node)):
            yield Fault(place, "expected a mapping with _target_, the class to build, or null", as_yaml(node))


class _Checker:
    """Walks a config; what a key interpolates is judged where it comes from, unless only the type here refuses it."""

    def __init__(self, interpolations: dict[str, str], already: set[str], allowed: Sequence[str]) -> None:
        self.interpolations = interpolations
        self.already = already
        self.allowed = tuple(allowed)

    def node(self, path: str, value: Any, *, curried: bool = False) -> Iterator[Fault]:
        """Faults of everything below ``path``; a curried node gets its first arguments later."""
        if path in self.interpolations and isinstance(value, dict | list):
            return
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.node(f"{path}[{index}]", item)
        if not isinstance(value, dict):
            return
        yield from self._reserved(path, value)
        if isinstance(value.get("_target_"), str):
            yield from self._target(path, value, curried)
        for key, item in value.items():
            yield from self.node(f"{path}.{key}", item, curried=curried and "_target_" not in value)

    def _reserved(self, path: str, node: dict[str, Any]) -> Iterator[Fault]:
        """Faults in the keys that tell Hydra how a node is built."""
        from genrec.annotations import accepts, as_yaml, describe
        from genrec.config.plain import UNRESOLVED

        for key, annotation in _RESERVED.items():
            place = f"{path}.{key}"
            if key in node and node[key] is not UNRESOLVED and not accepts(annotation, node[key]):
                yield Fault(place, f"expected {describe(annotation)}", as_yaml(node[key]))

    def _target(self, path: str, value: dict[str, Any], curried: bool) -> Iterator[Fault]:
        from genrec.config.ranges import optimizer_faults
        from genrec.config.signatures import TargetNotFoundError, read_signature
        from genrec.config.targets import refusal

        target = value["_target_"]
        if refusal(target, self.allowed) is not None:  # told of already, and reading its signature might import it
            return
        try:
            signature = read_signature(target)
        except TargetNotFoundError as error:
            yield Fault(f"{path}._target_", str(error), target, error.nearest)
            return
        curried = curried or bool(value.get("_partial_"))
        given = set(value) - set(_RESERVED)
        positional = len(value.get("_args_") or ())
        supplied = given | set(signature.positional[:positional])
        for key in [name for name in value if name not in _RESERVED]:
            yield from self._argument(path, key, value[key], signature, curried)
        for name, parameter in signature.parameters.items():
            later = curried and parameter.supplied
            if parameter.required and name not in supplied and not later and f"{path}.{name}" not in self.already:
                yield Fault(f"{path}.{name}", f"{signature.name} needs it and it is not given")
        yield from optimizer_faults(path, target, value)
        yield from self._entries(path, value)

    def _entries(self, path: str, node: dict[str, Any]) -> Iterator[Fault]:
        """Faults in the entries of ``parameter_groups``, which are read as the keys of that class."""
        entries = node.get("parameter_groups")
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict) and "_target_" not in entry:
                yield from self._target(f"{path}.parameter_groups[{index}]", {"_target_": _GROUP, **entry}, False)

    def _argument(self, path: str, key: str, value: Any, signature: Signature, curried: bool) -> Iterator[Fault]:
        from genrec.annotations import accepts, as_yaml, choices, describe
        from genrec.config.ranges import narrowed
        from genrec.config.signatures import nearest

        place = f"{path}.{key}"
        parameter = signature.parameters.get(key)
        if parameter is None:
            if not signature.open:
                names = [name for name, item in signature.parameters.items() if not (item.supplied and curried)]
                listing = f"It takes: {', '.join(names) or 'none'}."
                yield Fault(place, f"{signature.name} takes no such key", as_yaml(value), nearest(key, names), listing)
            return
        annotation = narrowed(path, signature.target, key, parameter.annotation)
        if _builds_object(value) or self._source(place) in self.already or accepts(annotation, value):
            return
        source = f" (from {self.interpolations[place]})" if place in self.interpolations else ""
        near = nearest(value, choices(annotation)) if isinstance(value, str) else None
        yield Fault(place, f"expected {describe(annotation)}", as_yaml(value) + source, near)

    def _source(self, place: str) -> str:
        return self.interpolations.get(place, "").removeprefix("${").removesuffix("}")


def _builds_object(value: Any) -> bool:
    """Whether instantiation will replace (part of) a value by an object, so that its type cannot be judged here."""
    from genrec.config.plain import UNRESOLVED

    if isinstance(value, dict):
        return "_target_" in value or any(_builds_object(item) for item in value.values())
    return any(_builds_object(item) for item in value) if isinstance(value, list) else value is UNRESOLVED


# ---- rules that tie keys together -----------------------------------------------------------------------------------

RANKING_METRICS = ("recall", "ndcg", "hit", "mrr", "precision", "map")


def _check_rules(values: dict[str, Any]) -> Iterator[Fault]:
    yield from _check_data(values)
    yield from _check_monitor(values)
    yield from _check_protocol(values)


def _check_data(values: dict[str, Any]) -> Iterator[Fault]:
    """Parts of the data are nodes, which the signature of a data set leaves open."""
    from genrec.annotations import as_yaml

    data = values.get("data")
    for key in ("source", "split"):
        part = data.get(key, {"_target_": ""}) if isinstance(data, dict) else {"_target_": ""}
        if not _builds_object(part):
            yield Fault(f"data.{key}", "expected a mapping with _target_, the class to build", as_yaml(part))


def _trainer(values: dict[str, Any]) -> dict[str, Any]:
    """The node of the trainer, empty where something else stands there, which is told elsewhere."""
    trainer = values.get("trainer")
    return trainer if isinstance(trainer, dict) else {}


def _check_protocol(values: dict[str, Any]) -> Iterator[Fault]:
    """A model and the baselines beside it are scored by one protocol, which therefore stands at the root."""
    from genrec.annotations import as_yaml

    trainer = _trainer(values)
    for key in ("filter_seen", "k_values"):
        if key in trainer and key in values and trainer[key] != values[key]:
            given = as_yaml(trainer[key])
            yield Fault(
                f"trainer.{key}", "it holds for all models alike, so give it at the root", given, f"{key}={given}"
            )


def _check_monitor(values: dict[str, Any]) -> Iterator[Fault]:
    """What selects a model is a metric that is computed, and never one of the test set.

    The root's ``monitor`` names one of ``k_values``; a trainer computes any k that its own ``monitor`` asks for, so
    that ``k_values=[5]`` works with a trainer that monitors recall@10.
    """
    k_values = values.get("k_values")
    own = _trainer(values).get("monitor")
    if isinstance(k_values, list):
        yield from monitor_faults("monitor", values.get("monitor"), k_values)
        named = str(own).rpartition("@")[2]
        yield from monitor_faults("trainer.monitor", own, [*k_values, *([named] if named.isdecimal() else [])])


def monitor_faults(key: str, monitor: Any, k_values: Sequence[Any]) -> Iterator[Fault]:
    from genrec.config.signatures import nearest

    if not isinstance(monitor, str):
        return
    allowed = [f"val/{name}@{k}" for name in RANKING_METRICS for k in k_values]
    listing = f"Allowed: val/loss, train/loss, or val/<{'|'.join(RANKING_METRICS)}>@<{'|'.join(map(str, k_values))}>."
    if monitor.startswith(("test/", "test_")):
        near = "val/" + monitor[len("test/") :]
        yield Fault(key, "the test set must not choose a model", monitor, near if near in allowed else None, listing)
    elif "@" in monitor and monitor.replace("val_", "val/", 1) not in allowed:
        same_metric = [name for name in allowed if name.partition("@")[0] == monitor.partition("@")[0]]
        near = nearest(monitor, same_metric or allowed)
        yield Fault(key, f"not among the metrics computed for k_values={list(k_values)}", monitor, near, listing)
    elif monitor.startswith("val/") and monitor[len("val/") :] in RANKING_METRICS:
        near = f"{monitor}@{k_values[-1]}" if k_values else None
        yield Fault(key, "a ranking metric is taken at a cut-off", monitor, near, listing)
    elif "@" not in monitor and not monitor.startswith(("val/", "train/", "val_", "train_")):
        near = nearest(monitor, [*allowed, "val/loss", "train/loss"])
        yield Fault(key, "not a metric's name", monitor, near, listing)
