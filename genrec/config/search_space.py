"""What a search may vary: Hydra's sweep syntax as a space of parameters, some of which exist only beside others.

``optimizer.lr=tag(log, interval(1e-4, 1e-2))`` is a range on a log scale, ``model.num_layers=range(1, 5)`` whole
numbers (5 is left out), ``trainer=simple,advanced`` a choice. A condition, ``trainer.patience: trainer=advanced``, says
where a parameter is varied at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from genrec.config.faults import Fault, report
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONDITIONS = "hydra.sweeper.conditions"
PARAMS = "hydra.sweeper.params"


class SpaceError(GenrecError):
    """A search space with ``faults``."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(report(faults))
        self.faults = list(faults)


@dataclass(frozen=True)
class Choice:
    """One of several values, spelled as an override spells them."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check, which are all of them."""
        return self.values

    def enumerated(self) -> tuple[str, ...] | None:
        return self.values

    def text(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Span:
    """A number from ``low`` to ``high``, both included; ``step`` None is every number between, ``log`` a log scale."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.text(self.low), self.text(self.high))))

    def enumerated(self) -> tuple[str, ...] | None:
        """All values, None where there is no end of them."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return None
        return tuple(self.text(self.low + index * step) for index in range(_steps(self.low, self.high, step) + 1))

    def text(self, value: Any) -> str:
        """A value as an override spells it: six digits say enough."""
        if self.whole:
            return str(int(value))
        return f"{min(max(float(f'{value:.6g}'), self.low), self.high)!r}"


@dataclass(frozen=True)
class Condition:
    """``key`` has one of ``values``."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """A key that is varied. ``element`` is how an override names it (``+a.b`` for a key that is added)."""

    key: str
    element: str
    domain: Choice | Span
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class SearchSpace:
    """Parameters, each after those that its conditions name; ``known`` are the values of keys that are not varied."""

    parameters: tuple[Parameter, ...]
    known: Mapping[str, str]

    def propose(self, pick: Callable[[Parameter], str]) -> list[str]:
        """The overrides of one trial: ``pick`` is asked for the value of every parameter that exists in it."""
        chosen: dict[str, str] = {}
        overrides = []
        for parameter in self.parameters:
            if all(self._holds(condition, chosen) for condition in parameter.conditions):
                text = pick(parameter)
                chosen[parameter.key] = plain(text)
                overrides.append(f"{parameter.element}={text}")
        return overrides

    def examples(self, limit: int) -> list[list[str]]:
        """Trials in which every choice and both ends of every range occur: all combinations where those are at most
        ``limit``, else each value once."""
        total = math.prod(len(parameter.domain.ends) for parameter in self.parameters)
        if total <= limit:
            return self._combined([parameter.domain.ends for parameter in self.parameters])
        wanted = [(parameter.key, value) for parameter in self.parameters for value in parameter.domain.ends]
        return _distinct(self._with(key, value) for key, value in wanted)

    def grid(self) -> list[list[str]]:
        """Every trial there is, in order; ``SpaceError`` where a range has no end of values."""
        lists = [parameter.domain.enumerated() for parameter in self.parameters]
        text = "a grid needs values to count: range(...), choice(...), or another sampler"
        faults = [
            Fault(parameter.key, text)
            for parameter, values in zip(self.parameters, lists, strict=True)
            if values is None
        ]
        if faults:
            raise SpaceError(faults)
        return self._combined([values or () for values in lists])

    def _combined(self, lists: Sequence[Sequence[str]]) -> list[list[str]]:
        keys = [parameter.key for parameter in self.parameters]
        return _distinct(self._spelled(dict(zip(keys, values, strict=True))) for values in product(*lists))

    def _with(self, key: str, value: str) -> list[str]:
        """A trial in which a parameter exists and has that value."""
        by_key = {parameter.key: parameter for parameter in self.parameters}
        values = {name: parameter.domain.ends[0] for name, parameter in by_key.items()}
        values[key] = value
        needed = [key]
        for name in needed:  # grows while it is walked: a condition may have conditions
            for condition in by_key[name].conditions:
                if condition.key in by_key:
                    values[condition.key] = _spelling(by_key[condition.key].domain, condition.values[0])
                    needed.append(condition.key)
        return self._spelled(values)

    def _spelled(self, values: Mapping[str, str]) -> list[str]:
        return self.propose(lambda parameter: values[parameter.key])

    def _holds(self, condition: Condition, chosen: Mapping[str, str]) -> bool:
        varied = any(parameter.key == condition.key for parameter in self.parameters)
        value = chosen.get(condition.key) if varied else self.known.get(condition.key)
        return value in condition.values


def _spelling(domain: Choice | Span, value: str) -> str:
    """How a domain spells a plain value."""
    spelled = [text for text in domain.enumerated() or () if plain(text) == value]
    return spelled[0] if spelled else value


def _steps(low: float, high: float, step: float) -> int:
    return math.floor((high - low) / step + 1e-9)


def _distinct(trials: Iterable[list[str]]) -> list[list[str]]:
    """Trials without repetition: combinations that differ in what does not exist are one."""
    return [list(trial) for trial in dict.fromkeys(map(tuple, trials))]


def plain(value: Any) -> str:
    """A value in one spelling, however a config or an override spells it: 0.001 for 1e-3, true for True."""
    text = str(value)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false", "null", "none"):
        return text.lower().replace("none", "null")
    return text


# ---- reading --------------------------------------------------------------------------------------------------------


def read_space(
    params: Sequence[Override],
    given: Sequence[Override] = (),
    conditions: Mapping[str, Any] | None = None,
    lookup: Callable[[str], Any] = lambda key: None,
) -> tuple[SearchSpace, list[str]]:
    """The space of a search, and the overrides that all of its trials share.

    ``params`` are those of the sweeper's config and ``given`` those of the command line, which replace them: a single
    value takes its parameter out of the search. ``lookup`` tells the value that a key has in the config, None where
    there is none. Raises ``SpaceError`` with all faults.
    """
    items = {item.key_or_group + (f"@{item.package}" if item.package else ""): item for item in [*params, *given]}
    faults: list[Fault] = []
    domains: dict[str, tuple[str, Choice | Span]] = {}
    fixed: dict[str, str] = {}
    bounds = _read_conditions(conditions or {}, items, faults)
    for key, item in items.items():
        if not item.is_sweep_override() and (key not in bounds or item.is_delete()):
            fixed[key] = item.input_line or ""
        elif domain := _domain(key, item, faults):
            domains[key] = (item.get_key_element(), domain)
    if not any(item.is_sweep_override() for item in items.values()) and not faults:
        example = "-m sweep=optuna optimizer.lr='tag(log, interval(1e-4, 1e-2))'"
        faults.append(Fault(PARAMS, f"there is nothing to search. Say what is varied, for example {example}"))
    known = {key: _fixed_value(items[key]) for key in fixed}
    parents = {condition.key for found in bounds.values() for condition in found} - set(domains)
    known |= {key: plain(value) for key in parents - set(known) if (value := lookup(key)) is not None}
    for key, found in bounds.items():
        faults += [fault for condition in found for fault in _condition_faults(key, condition, domains, known)]
    ordered = _ordered(domains, bounds, faults)
    if faults:
        raise SpaceError(faults)
    parameters = [Parameter(key, *domains[key], tuple(bounds.get(key, ()))) for key in ordered]
    return SearchSpace(tuple(parameters), known), list(fixed.values())


def read_search(
    params: Mapping[str, Any] | None,
    arguments: Sequence[str],
    conditions: Mapping[str, Any] | None,
    loader: ConfigLoader,
    config: DictConfig,
) -> tuple[SearchSpace, list[str]]:
    """``read_space`` of the words of a sweeper's config and of a command line, which change ``config``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create(config_loader=loader)
    try:
        declared = parser.parse_overrides([f"{key}={value}" for key, value in (params or {}).items()])
        given = parser.parse_overrides(list(arguments))
    except HydraException as error:
        raise GenrecError(" ".join(str(error).split("\n")[:2])) from None
    return read_space(declared, given, conditions, lambda key: value_in(config, key))


def value_in(config: DictConfig, key: str) -> Any:
    """The option chosen of a group, or the value of a key; None where there is none."""
    from omegaconf import OmegaConf

    choices = config.hydra.runtime.choices
    return choices[key] if key in choices else OmegaConf.select(config, key, throw_on_missing=False)


def _fixed_value(item: Override) -> str:
    return "null" if item.is_delete() else plain(item.get_value_element_as_str())


def _domain(key: str, item: Override, faults: list[Fault]) -> Choice | Span | None:
    """What an override says that a key may be; None with a fault."""
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    value, given = item.value(), (item.input_line or "").partition("=")[2]
    tags = getattr(value, "tags", set())
    problem = None
    domain: Choice | Span | None = None
    if key.split(".")[0].split("/")[0] == "hydra":
        problem = "keys of hydra say how runs are started, and cannot be searched"
    elif unknown := sorted(set(tags) - {"log"}):
        problem = f"no tag '{unknown[0]}': the one tag is log, tag(log, interval(1e-4, 1e-2))"
    elif isinstance(value, IntervalSweep):
        domain, problem = _interval(value, "log" in tags)
    elif isinstance(value, RangeSweep):
        domain, problem = _range(value, "log" in tags)
    elif tags:
        problem = "a choice has no scale: tag(log, ...) takes an interval or a range"
    else:
        domain, problem = _choice(item)
    if problem:
        faults.append(Fault(key, problem, given))
    return domain if not problem else None


def _interval(value: Any, log: bool) -> tuple[Span | None, str | None]:
    low, high = value.start, value.end
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None, "an interval goes from a lower to a higher number, interval(1e-4, 1e-2)"
    if log and low <= 0:
        return None, "a log scale begins above 0"
    return Span(low, high, whole=isinstance(low, int) and isinstance(high, int), log=log), None


def _range(value: Any, log: bool) -> tuple[Span | None, str | None]:
    numbers = [value.start, value.stop, value.step]
    if value.step == 0 or (value.stop - value.start) / value.step <= 0:
        return None, "the range is empty: range(start, stop) leaves stop out"
    values = [number if isinstance(number, int) else float(f"{number:.12g}") for number in value.range()]
    whole = all(isinstance(number, int) for number in numbers)
    low, high, step = min(values), max(values), abs(value.step)
    if log and (low <= 0 or step != 1 or not whole):
        return None, "a log scale takes whole numbers above 0 one by one, or an interval"
    return Span(low, high, whole=whole, log=log, step=None if log else step), None


def _choice(item: Override) -> tuple[Choice | None, str | None]:
    if not item.is_sweep_override():
        return Choice((item.get_value_element_as_str(),)), None
    values = tuple(item.sweep_string_iterator())
    if not values:
        return None, "there is nothing to choose from"
    twice = [value for value in values if values.count(value) > 1]
    return Choice(values), f"{twice[0]} is listed twice" if twice else None


# ---- conditions -----------------------------------------------------------------------------------------------------


def _read_conditions(
    conditions: Mapping[str, Any], items: Mapping[str, Override], faults: list[Fault]
) -> dict[str, list[Condition]]:
    from genrec.config.signatures import nearest

    found: dict[str, list[Condition]] = {}
    for key, texts in conditions.items():
        if key not in items:
            listing = f"Parameters: {', '.join(items) or 'none'}."
            faults.append(Fault(f"{CONDITIONS}.{key}", "no such parameter", None, nearest(key, items), listing))
            continue
        for text in [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else [None]:
            condition = _condition(text)
            if condition is None:
                problem = "a condition is written 'trainer=advanced' or 'trainer=[simple,advanced]'"
                faults.append(Fault(f"{CONDITIONS}.{key}", problem, str(text)))
            else:
                found.setdefault(key, []).append(condition)
    return found


def _condition(text: Any) -> Condition | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not isinstance(text, str):
        return None
    try:
        (item,) = OverridesParser.create().parse_overrides([text])
    except HydraException:
        return None
    if item.is_delete() or item.is_sweep_override():
        return None
    value = item.value()
    values = tuple(plain(entry) for entry in value) if isinstance(value, list) else (_fixed_value(item),)
    return Condition(item.key_or_group, values) if values else None


def _condition_faults(
    key: str, condition: Condition, domains: Mapping[str, tuple[str, Choice | Span]], known: Mapping[str, str]
) -> Iterator[Fault]:
    from genrec.config.signatures import nearest

    place, given = f"{CONDITIONS}.{key}", f"{condition.key}={','.join(condition.values)}"
    if condition.key not in domains:
        if condition.key not in known:
            listing = f"Parameters: {', '.join(domains) or 'none'}."
            near = nearest(condition.key, domains)
            yield Fault(place, f"{condition.key} is neither a parameter nor a key of the config", given, near, listing)
        return
    values = domains[condition.key][1].enumerated()
    if values is None:
        yield Fault(place, f"{condition.key} is any number of a range, and a condition needs values to choose", given)
        return
    possible = [plain(value) for value in values]
    for value in condition.values:
        if value not in possible:
            listing = f"It is one of: {', '.join(possible)}."
            yield Fault(place, f"{condition.key} is never {value}", given, nearest(value, possible), listing)


def _ordered(domains: Mapping[str, Any], bounds: Mapping[str, Sequence[Condition]], faults: list[Fault]) -> list[str]:
    """The parameters, each after those that its conditions name."""
    ordered: list[str] = []
    waiting = list(domains)
    while waiting:
        free = [key for key in waiting if not {bound.key for bound in bounds.get(key, ())} & set(waiting)]
        if not free:
            circle = ", ".join(waiting)
            faults.append(Fault(CONDITIONS, f"each of {circle} waits for another of them"))
            return ordered
        ordered.append(free[0])
        waiting.remove(free[0])
    return ordered
