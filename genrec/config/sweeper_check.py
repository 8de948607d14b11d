"""A sweep before it begins: what it needs installed, whether its options are right, and the jobs to try in mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

from genrec.config.faults import Fault
from genrec.directions import instead_of_ratio, is_ratio, ratio_words

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

SEARCH = "genrec.sweeps.optuna_sweeper.OptunaSweeper"
_PLACE = "hydra.sweeper"
_LONGEST_RANGE = 10_000  # values that one word names
_MAX_JOBS = 24  # that are checked in every combination; of larger sweeps, each value once
_EXTRAS = {"hydra_joblib_launcher": "parallel", "hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}
_MEASURED = ("seconds/", "resources/", "peak/", "tokenizer/")
_UNFIT = ("test/", "baseline/", "ceiling/")


def sweep_jobs(
    config: DictConfig, params: Sequence[Override], given: Sequence[Override]
) -> tuple[list[list[str]], list[Fault]]:
    """Overrides of jobs in which every value of a sweep occurs, and what is wrong with the sweep as such.

    ``config`` is composed without values, ``params`` are those of its sweeper and ``given`` those of the command line.
    """
    faults = list(missing_extras(config.hydra))
    if config.hydra.sweeper.get("_target_") == SEARCH:
        options = plain_node(config.hydra.sweeper)
        faults += search_faults(options, config)
        jobs, found = _search_jobs(options, config, params, given)
    else:
        jobs, found = _grid_jobs([*params, *given])
    return jobs, faults + found


def unfit_nodes(config: DictConfig) -> list[Fault]:
    """What keeps the sweeper and the launcher of a composed config from being built."""
    from genrec.config.plain import PlainConfig

    plain = PlainConfig(config.hydra)
    broken = [replace(fault, key=f"hydra.{fault.key}") for fault in plain.faults]
    faults = [fault for fault in broken if fault.key.split(".")[1] in ("sweeper", "launcher")]
    known = {fault.key for fault in faults} | {fault.key for fault in missing_extras(plain.values)}
    for name in ("sweeper", "launcher"):
        if not any(key.startswith((f"hydra.{name}", f"hydra/{name}")) for key in known):
            faults += _node_faults(name, plain.values[name], config)
    return faults


def _node_faults(name: str, node: Any, config: DictConfig) -> list[Fault]:
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper
    from hydra.utils import get_class

    from genrec.annotations import as_yaml
    from genrec.config.root import node_faults
    from genrec.config.targets import PLUGINS, named_by_user, target_faults

    place, target = f"hydra.{name}", node.get("_target_") if isinstance(node, dict) else None
    text = f"a sweep needs one; leave it as it is, or choose one (hydra/{name}=basic)"
    if not isinstance(target, str):
        return [Fault(place, text, as_yaml(node))]
    allowed = (*named_by_user(config), *PLUGINS)
    faults = [*target_faults(place, node, allowed), *node_faults(place, node, allowed)]
    if not faults and not issubclass(get_class(target), Sweeper if name == "sweeper" else Launcher):
        faults.append(Fault(f"{place}._target_", text, target))
    if not faults and "max_batch_size" in node and node["max_batch_size"] == 0:
        faults.append(Fault(f"{place}.max_batch_size", "expected a whole number of at least 1, or null", "0"))
    return list({fault.key: fault for fault in faults}.values())


def plain_node(node: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(node, resolve=True)
    return plain


def _grid_jobs(items: Sequence[Override]) -> tuple[list[list[str]], list[Fault]]:
    text = "an interval has no end of values: search it with sweep=random or sweep=optuna, or name values, 1e-3,3e-4"
    faults = [Fault(item.key_or_group, text, given_value(item)) for item in items if item.is_interval_sweep()]
    return combinations([alternatives(item) for item in items]), faults


def _search_jobs(
    options: Mapping[str, Any], config: DictConfig, params: Sequence[Override], given: Sequence[Override]
) -> tuple[list[list[str]], list[Fault]]:
    from genrec.config.search_space import SpaceError, read_space, value_in

    shared = [item.input_line or "" for item in given if item.is_hydra_override()]
    task = [item for item in given if not item.is_hydra_override()]
    try:
        space, fixed = read_space(params, task, options.get("conditions"), lambda key: value_in(config, key))
        if options.get("sampler") == "grid":
            space.grid()
        return [[*shared, *fixed, *example] for example in space.examples(_MAX_JOBS)], []
    except SpaceError as error:
        free = [item for item in task if item.key_or_group not in (options.get("conditions") or {})]
        return [[*shared, *job] for job in combinations([alternatives(item) for item in free])], error.faults


def range_fault(item: Override) -> Fault | None:
    """Why a word names a range that nobody can walk through; Hydra itself would try."""
    from hydra.core.override_parser.types import RangeSweep

    value = item.value()
    if not isinstance(value, RangeSweep):
        return None
    begin, end, step = (_number(number) for number in (value.start, value.stop, value.step))
    text = None
    if begin is None or end is None or not step:
        text = "a range goes from one number to another by steps that are not 0: range(1,5), range(0,1,0.1)"
    elif abs(end - begin) > _LONGEST_RANGE * abs(step):
        text = (
            f"a range names at most {_LONGEST_RANGE:,} values; a search takes an interval instead, interval(1,100000)"
        )
    return Fault(item.key_or_group, text, given_value(item)) if text else None


def _number(value: Any) -> Decimal | None:
    """A finite number, exactly."""
    number = Decimal(value) if isinstance(value, int | float) else None
    return number if number is not None and number.is_finite() else None


def alternatives(item: Override) -> list[str]:
    """The overrides without sweep that one override stands for; of an interval its two ends."""
    from hydra.core.override_parser.types import IntervalSweep

    if not item.is_sweep_override():
        return [item.input_line or ""]
    value = item.value()
    if isinstance(value, IntervalSweep):
        return [f"{item.get_key_element()}={end}" for end in (value.start, value.end)]
    return [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]


def combinations(axes: Sequence[list[str]]) -> list[list[str]]:
    """Every combination of the alternatives where those are few, else each alternative beside the first of others."""
    total = 1
    for axis in axes:
        total *= len(axis)
    if total <= _MAX_JOBS:
        return [list(job) for job in product(*axes)]
    first = [axis[0] for axis in axes]
    return [first] + [
        [*first[:index], value, *first[index + 1 :]] for index, axis in enumerate(axes) for value in axis[1:]
    ]


def given_value(item: Override) -> str:
    """What an override says after the equals sign."""
    return (item.input_line or "").partition("=")[2]


# ---- the search itself ----------------------------------------------------------------------------------------------


def missing_extras(hydra: Mapping[str, Any]) -> Iterator[Fault]:
    """What the sweeper and the launcher of the node ``hydra`` need and this environment has not."""
    sweeper, launcher = (node if isinstance(node, Mapping) else {} for node in (hydra["sweeper"], hydra["launcher"]))
    if sweeper.get("_target_") == SEARCH:
        needed = ["optuna", "cmaes"] if sweeper.get("sampler") == "cmaes" else ["optuna"]
        for name in needed:
            if find_spec(name) is None:
                yield Fault("hydra/sweeper", f"a search needs {name}: pip install 'genrec[sweep]'")
    package = str(launcher.get("_target_")).split(".")[:2]
    if package[0] == "hydra_plugins" and not _is_installed(".".join(package)):
        extra = _EXTRAS.get(package[-1])
        how = f"pip install 'genrec[{extra}]'" if extra else f"install {package[-1]}"
        chosen = hydra["runtime"]["choices"].get("hydra/launcher")
        yield Fault("hydra/launcher", f"this launcher is not installed: {how}", chosen)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def search_faults(options: Mapping[str, Any], config: DictConfig) -> list[Fault]:
    """What is wrong with the options of a search, its space aside."""
    from genrec.config.root import node_faults
    from genrec.config.targets import named_by_user

    found = node_faults(_PLACE, dict(options), named_by_user(config))
    faults = [fault for fault in found if fault.key.count(".") > 1]
    if faults:
        return faults
    objectives, directions = options.get("objectives") or [], options.get("directions")
    faults += [fault for name in objectives for fault in objective_faults(name, list(config.get("k_values") or []))]
    if directions and len(directions) != len(objectives):
        text = f"one direction for each of {len(objectives)} objectives"
        faults.append(Fault(f"{_PLACE}.directions", text, str(directions)))
    if len(objectives) > 1:
        faults += _single_only(options)
    return faults


def _single_only(options: Mapping[str, Any]) -> Iterator[Fault]:
    if options.get("pruner") != "none":
        yield Fault(f"{_PLACE}.pruner", "a search for several objectives cannot prune", None, "none")
    if options.get("sampler") == "cmaes":
        yield Fault(f"{_PLACE}.sampler", "it searches for one objective only", "cmaes", "tpe")


def objective_faults(name: str, k_values: Sequence[int]) -> Iterator[Fault]:
    """Why a metric is not one to search for."""
    from genrec.config.root import monitor_faults

    if name.startswith(_UNFIT):
        hint = "It may be val/..., train/loss, seconds/total, resources/parameters, peak/fit, tokenizer/..."
        yield Fault(f"{_PLACE}.objectives", "what is tested must not choose a model", name, None, hint)
    elif is_ratio(name):
        yield Fault(f"{_PLACE}.objectives", ratio_words("a ratio"), name, instead_of_ratio(name))
    elif not name.startswith(_MEASURED):
        yield from monitor_faults(f"{_PLACE}.objectives", name, k_values)
