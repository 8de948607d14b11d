"""What the command line may say: mistakes are answered in one short message before torch or any data is touched."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from genrec.config.faults import Fault, report
from genrec.config.root import NEEDED_NODES, RootConfig, check, conf_dir, place_faults, register_schema
from genrec.config.sweeper_check import (
    alternatives,
    combinations,
    given_value,
    plain_node,
    range_fault,
    sweep_jobs,
    unfit_nodes,
)
from genrec.contracts import GenrecError
from genrec.masking import masked_text, masked_words, scrub, secret_values

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

_DEEPEST = 50  # of what may be written; OmegaConf calls itself for each
_NO_PICKLE = "--experimental-rerun reads a pickle, which can run any code. Repeat the words in its overrides.yaml."
_NEXT = "Nothing was run. `python -m genrec.run --help` lists groups and keys, `--cfg job` shows the config."


def preflight(argv: Sequence[str]) -> int | None:
    """Answers ``--help`` (0) and mistakes (2); None means that Hydra may start the run."""
    if "--help" in argv or "-h" in argv:
        from genrec.config.usage import help_text

        sys.stdout.write(help_text(_option(argv, "--config-dir", "-cd")))
        return 0
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not see the user's own modules otherwise
    try:
        args = options_of(argv)
    except GenrecError as error:
        sys.stderr.write(f"{error}\n{_NEXT}\n")
        return 2
    if args.experimental_rerun is not None:
        sys.stderr.write(f"{_NO_PICKLE}\n")
        return 2
    asked = [name for name in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(args, name)]
    if len(asked) > 1:
        text = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        sys.stderr.write(f"{text} (-m is --multirun, -c is --cfg) ask for different things: give one.\n{_NEXT}\n")
        return 2
    if args.shell_completion:
        return None
    if args.hydra_help and args.overrides:
        words = " ".join(masked_words(args.overrides))
        sys.stderr.write(f"--hydra-help stands alone: leave out {words}.\n{_NEXT}\n")
        return 2
    if args.resolve and args.cfg is None:
        sys.stderr.write(f"--resolve says how --cfg shows a config: write --cfg job --resolve.\n{_NEXT}\n")
        return 2
    show_only = bool(args.hydra_help or args.info is not None or args.cfg is not None)
    try:
        with Composer(args.config_dir, args.config_name or "config", args.config_path) as composer:
            faults = command_faults(composer, args.overrides, multirun=args.multirun, show_only=show_only)
    except GenrecError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not faults:
        return None
    sys.stderr.write(f"{scrub(report(faults), secret_values({}, args.overrides))}\n{_NEXT}\n")
    return 2


def options_of(argv: Sequence[str]) -> Any:
    """The options and overrides of a command line as Hydra reads them; raises ``GenrecError`` where it cannot."""
    from hydra._internal.utils import get_args_parser

    def refused(message: str) -> NoReturn:
        text = f"{message[:1].upper()}{message[1:]}"
        raise GenrecError(
            f"{text}. Options begin with - and stand before or after all overrides, key=value, not between."
        )

    parser = get_args_parser()
    parser.error = refused
    return parser.parse_args(list(argv))


def with_new_keys(words: Sequence[str]) -> list[str]:
    """The words of a command line, ``a.key={...}`` spelled so that Hydra takes keys that it does not know yet.

    Another class takes other keys and a mapping any, and Hydra alone would refuse them: ``++a.key={...}`` is its word
    for that. What nobody takes is found when the whole config is checked.
    """
    return [f"++{word}" if re.match(r"[A-Za-z_]\w*\.[\w.]*=\{", word) else word for word in words]


class Composer:
    """Hydra's composition without a Hydra run; leaves the process as it found it."""

    def __init__(
        self, config_dir: str | Path | None = None, config_name: str = "config", config_path: str | None = None
    ) -> None:
        self.config_dir = Path(config_dir).absolute() if config_dir else None
        self.config_name = config_name
        self.main = Path(__file__).resolve().parents[1] / config_path if config_path else conf_dir()
        self._composed: dict[tuple[str, ...], DictConfig | Exception] = {}
        self._parsed: dict[str, list[Override] | Fault] = {}
        self._lists: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
        if self.config_dir and not self.config_dir.is_dir():
            raise GenrecError(f"--config-dir {config_dir}: there is no such folder. It holds groups as conf/ does.")

    def __enter__(self) -> Self:
        from hydra._internal.hydra import Hydra
        from hydra._internal.utils import create_config_search_path
        from hydra.core.config_search_path import SearchPathQuery
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.singleton import Singleton
        from hydra.version import setbase

        register_schema()
        self._backup = Singleton._instances.get(GlobalHydra)
        Singleton._instances.pop(GlobalHydra, None)
        setbase("1.3")
        search_path = create_config_search_path(str(self.main))
        if self.config_dir:
            anchor = SearchPathQuery(provider="schema")
            search_path.prepend(provider="command-line", path=f"file://{self.config_dir}", anchor=anchor)
        self.hydra = Hydra.create_main_hydra2(task_name="run", config_search_path=search_path)
        return self

    def __exit__(self, *_: object) -> None:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.singleton import Singleton

        Singleton._instances.pop(GlobalHydra, None)
        if self._backup is not None:
            Singleton._instances[GlobalHydra] = self._backup

    def try_compose(self, overrides: Sequence[str]) -> DictConfig | Exception:
        """The whole config, the ``hydra`` node included, or why there is none: any failure here is a user's mistake."""
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = self._compose(key)
        return self._composed[key]

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig | Exception:
        from hydra.types import RunMode

        options: dict[str, Any] = {"run_mode": RunMode.RUN, "from_shell": False, "with_log_configuration": False}
        try:
            return self.hydra.compose_config(self.config_name, with_new_keys(overrides), **options)
        except Exception as error:
            return error

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config as a run sees it; raises ``GenrecError`` with all faults where it cannot be composed."""
        from omegaconf import open_dict

        config = self.try_compose(overrides)
        if isinstance(config, Exception):
            raise GenrecError(report(Diagnosis(self, overrides).faults() or [_hydra_fault(config)]))
        config = config.copy()
        with open_dict(config):
            del config["hydra"]
        return config

    def groups(self, paths: Sequence[str] = ()) -> list[str]:
        """The groups of genrec and of the user; ``paths`` are overrides of ``hydra.searchpath``."""
        return [name for name in self._listed("", paths, of_groups=True) if name != "hydra"]

    def groups_of_hydra(self, paths: Sequence[str] = ()) -> list[str]:
        """``hydra/sweeper`` and the like."""
        return [f"hydra/{name}" for name in self._listed("hydra", paths, of_groups=True)]

    def options(self, group: str, paths: Sequence[str] = ()) -> list[str]:
        """The options of a group, empty where there is no such group."""
        return self._listed(group, paths)

    def _listed(self, group: str, paths: Sequence[str], *, of_groups: bool = False) -> list[str]:
        from hydra.core.object_type import ObjectType
        from hydra.errors import HydraException

        key = (group, tuple(paths), of_groups)
        if key not in self._lists:
            kind, listed = (
                ObjectType.GROUP if of_groups else ObjectType.CONFIG,
                self.hydra.config_loader.get_group_options,
            )
            try:
                self._lists[key] = sorted(listed(group, kind, self.config_name, list(paths)))
            except HydraException:  # the paths are none, as composing says
                self._lists[key] = sorted(listed(group, kind))
        return self._lists[key]

    def parse(self, override: str) -> list[Override] | Fault:
        """An override as Hydra reads it, or the fault that keeps it from being read."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        if override not in self._parsed and _depth(override) > _DEEPEST:
            text = f"lists and mappings stand at most {_DEEPEST} within each other"
            self._parsed[override] = Fault(override.partition("=")[0], text, override.partition("=")[2])
        if override not in self._parsed:
            try:
                parser = OverridesParser.create(config_loader=self.hydra.config_loader)
                found = parser.parse_overrides([override])
                endless = [fault for item in found if (fault := range_fault(item))]
                self._parsed[override] = endless[0] if endless else found
            except HydraException as error:
                self._parsed[override] = _syntax_fault(override, str(error))
        return self._parsed[override]


# ---- faults of a command line ---------------------------------------------------------------------------------------


def command_faults(
    composer: Composer, overrides: Sequence[str], *, multirun: bool = False, show_only: bool = False
) -> list[Fault]:
    """All faults of all jobs that a command line asks for; with ``show_only`` those that keep it from composing."""
    parsed, faults = _parse(composer, overrides)
    text = "it stands for no value at all: name some, 1e-3,3e-4"
    faults += [Fault(item.key_or_group, text, given_value(item)) for item in parsed if not alternatives(item)]
    parsed = [item for item in parsed if alternatives(item)]
    first = [alternatives(item)[0] for item in parsed]
    if show_only and not isinstance(composer.try_compose(first), Exception):
        return faults + _shown_dangers(composer, first)
    base = Diagnosis(composer, first).base()
    swept = [item for item in parsed if item.is_sweep_override()]
    if not _is_multirun(base, multirun):
        if swept:
            text = "several values need -m; a list is written [a,b]"
            return faults + [Fault(item.key_or_group, text, given_value(item)) for item in swept]
        jobs = [first]
    elif isinstance(base, Exception):
        jobs = combinations([alternatives(item) for item in parsed])
    elif unfit := unfit_nodes(base):
        return faults + unfit
    else:
        params, unreadable = _parse(composer, _sweeper_params(base))
        jobs, found = sweep_jobs(base, params, parsed)
        faults += [*unreadable, *found]
    for job in jobs:
        faults += Diagnosis(composer, job).faults()
    if not faults:
        whole = composer.try_compose(jobs[0])
        faults += [_hydra_fault(whole)] if isinstance(whole, Exception) else []
    return list(dict.fromkeys(faults))


def _shown_dangers(composer: Composer, overrides: Sequence[str]) -> list[Fault]:
    """Hydra sets up its logging before it shows a config."""
    from genrec.config.plain import PlainConfig
    from genrec.config.targets import hydra_faults, named_by_user

    whole: Any = composer.try_compose(overrides)
    return list(hydra_faults(PlainConfig(whole.hydra).values, named_by_user(whole)))


def _parse(composer: Composer, overrides: Sequence[str]) -> tuple[list[Override], list[Fault]]:
    parsed: list[Override] = []
    faults = []
    for found in map(composer.parse, overrides):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            parsed += found
    return parsed, faults


def _syntax_fault(text: str, message: str) -> Fault:
    if "=" not in text:
        return Fault(text, "an override is written key=value (+key=value adds a key, ~key removes one)")
    secret = masked_text(text) != text  # Hydra's reason may hold a piece of it
    reason = text if secret else message.splitlines()[0].removeprefix("LexerNoViableAltException: ")
    hint = "Quote values with spaces, commas or brackets for the shell as well: 'key=\"a, b\"'."
    detail = f" ({reason})" if reason != text else ""
    return Fault(text, f"this is not an override that can be read{detail}", None, None, hint)


def _depth(text: str) -> int:
    """How many brackets of a word are open at once, at most."""
    return max(accumulate((letter in "[{(") - (letter in "]})") for letter in text), default=0)


def _is_multirun(config: DictConfig | Exception, flag: bool) -> bool:
    return flag or (not isinstance(config, Exception) and str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN")


def _sweeper_params(config: DictConfig) -> list[str]:
    """What the sweeper's own config varies, as overrides."""
    from omegaconf import OmegaConf

    params: Any = OmegaConf.select(config, "hydra.sweeper.params")
    return [f"{key}={value}" for key, value in (plain_node(params) if params else {}).items()]


class Diagnosis:
    """All mistakes in the overrides of one job, where Hydra itself stops at the first.

    Only the choices of groups are composed by Hydra; the values are then set one by one on a config that takes any
    key, so that jobs of a sweep share the composition, which is what takes time.
    """

    def __init__(self, composer: Composer, overrides: Sequence[str]) -> None:
        parsed = _parse(composer, overrides)[0]
        self.composer = composer
        self.paths = [item.input_line or "" for item in parsed if item.key_or_group == "hydra.searchpath"]
        self.groups = composer.groups(self.paths)
        self.found: list[Fault] = []
        self.choices: list[str] = []
        self.of_hydra: list[Override] = []
        self.values: list[Override] = []
        for item in parsed:
            if item.key_or_group.partition(".")[0] == "hydra":
                self.choices.append(item.input_line or "")
                self.of_hydra.append(item)
            elif item.package is not None or "/" in item.key_or_group or self._options(item.key_or_group):
                self.choices += self._choice(item)
            else:
                self.values.append(item)

    def base(self) -> DictConfig | Exception:
        """The config before any value is set, or why there is none."""
        return self.composer.try_compose(self.choices)

    def faults(self) -> list[Fault]:
        """All faults that can be told apart."""
        from omegaconf import DictConfig, OmegaConf

        base = self.base()
        if isinstance(base, Exception):
            why = self._unknown_of_hydra() or [_hydra_fault(base)]
            return [*self.found, *why] if self.paths else self.found or why
        config = OmegaConf.create(OmegaConf.to_container(base, resolve=False))
        assert isinstance(config, DictConfig)
        for item in self.values:
            self._apply(config, item)
        self.found += _dangers(base, config)
        known = {fault.key for fault in self.found}
        return [*self.found, *(fault for fault in check(config, self.groups) if fault.key not in known)]

    def _unknown_of_hydra(self) -> list[Fault]:
        """What is named below ``hydra`` and is not there."""
        words = [item.input_line for item in self.of_hydra]
        whole: Any = self.composer.try_compose([word for word in self.choices if word not in words])
        named = [item for item in self.of_hydra if not (item.is_add() or item.is_force_add())]
        if isinstance(whole, Exception):
            return []
        return [fault for item in named if (fault := self._unknown(whole, item)) is not None]

    def _choice(self, item: Override) -> list[str]:
        """The choice of a group's option as it should have been, empty where nothing is near."""
        from genrec.config.signatures import nearest

        group, options, value = item.key_or_group, self._options(item.key_or_group), item.value()
        if not options:
            groups = self.composer.groups_of_hydra(self.paths) if group.startswith("hydra/") else self.groups
            known = f"Groups: {', '.join(groups)}."
            self._add(Fault(group, "no such group", given_value(item), nearest(group, groups), known))
            return []
        listing = f"Options: {', '.join(options)}."
        if item.is_delete():
            return [item.input_line or ""]
        if not isinstance(value, str | list):
            none = "" if group in NEEDED_NODES else f", or write '~{group}' for none"
            self._add(Fault(group, f"name one option{none}", given_value(item), None, listing))
            return []
        wrong = [str(name) for name in (value if isinstance(value, list) else [value]) if str(name) not in options]
        for name in wrong:
            self._add(Fault(group, f"no {group} '{name}'", name, nearest(name, options), listing))
        if not wrong:
            return [item.input_line or ""]
        near = nearest(wrong[0], options) if isinstance(value, str) else None
        return [f"{item.get_key_element()}={near}"] if near else []

    def _options(self, group: str) -> list[str]:
        return self.composer.options(group, self.paths)

    def _add(self, fault: Fault) -> None:
        self.found.append(fault)

    def _apply(self, config: Any, item: Override) -> None:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        key = item.key_or_group
        fault = None if item.is_add() or item.is_force_add() else self._unknown(config, item)
        if fault is not None:
            self._add(fault)
            return
        if item.is_delete() and key in RootConfig.__dataclass_fields__:
            self._add(Fault(key, "a run needs it, so give it another value, or leave it as it is"))
            return
        merges = isinstance(item.value(), dict | list)
        try:
            if item.is_delete():
                parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
                del parent[key.rpartition(".")[2]]
            elif item.is_add() and not merges and OmegaConf.select(config, key) is not None:
                self._add(Fault(key, "the config has it already: leave out the +", given_value(item)))
            else:
                OmegaConf.update(config, key, item.value(), merge=True, force_add=True)
        except (OmegaConfBaseException, TypeError, AttributeError, ValueError) as error:
            self._add(Fault(key, str(error).splitlines()[0], given_value(item)))

    def _unknown(self, config: Any, item: Override) -> Fault | None:
        """The fault of naming a key that is not there; None where it is, or where ``check`` will say it better."""
        from genrec.config.signatures import TargetNotFoundError, nearest, read_signature
        from genrec.config.targets import named_by_user, refusal

        node: Any = config
        parts = item.key_or_group.split(".")
        for depth, part in enumerate(parts):
            place = ".".join(parts[: depth + 1])
            if node is None:
                above = ".".join(parts[:depth])
                return Fault(item.key_or_group, f"{above} is null here, so it has no keys", given_value(item))
            if not hasattr(node, "keys") or "[" in part:
                return None
            if part in _names(node):
                if depth + 1 == len(parts) or _is_interpolation(node, part):
                    return None
                node = node[part] if not _is_missing(node, part) else None
                continue
            if depth == 0:
                known = list(dict.fromkeys([*RootConfig.__dataclass_fields__, *self.groups]))
                given = given_value(item) if place == item.key_or_group else None
                return Fault(place, "no such key or group", given, nearest(part, known), f"Known: {', '.join(known)}.")
            target = node.get("_target_")
            if not isinstance(target, str) or depth + 1 < len(parts) or parts[0] == "hydra":
                names = [name for name in _names(node) if not name.startswith("_")]
                given = given_value(item) if place == item.key_or_group else None
                known = f"Known: {', '.join(names)}." if names else f"{'.'.join(parts[:depth])} has no keys here."
                return Fault(place, "no such key", given, nearest(part, names), known)
            if refusal(target, named_by_user(config)) is not None:
                return None
            try:
                signature = read_signature(target)
            except TargetNotFoundError:
                return None
            if part in signature.parameters or (signature.open and not nearest(part, signature.parameters)):
                word = masked_text(item.input_line or "")
                return Fault(place, f"the config does not list it; {signature.name} takes it: write +{word}")
        return None


def _dangers(base: DictConfig, config: DictConfig) -> list[Fault]:
    """What Hydra would run before the run itself is checked, and files that would widen what a config may run.

    ``base`` is composed of files alone, the node ``hydra`` aside; ``config`` has the values of the command line.
    """
    from genrec.config.plain import PlainConfig
    from genrec.config.targets import VARIABLE, hydra_faults, named_by_user

    if base.get("allow_targets"):
        text = f"only you may say it, on the command line or in the environment ({VARIABLE}), and a file does"
        return [Fault("allow_targets", text, str(base.allow_targets))]
    hydra = PlainConfig(base.hydra).values
    nodes = {key: hydra.get(key) for key in ("run", "sweep")}
    folders = {f"hydra.{key}.dir": node.get("dir") for key, node in nodes.items() if isinstance(node, dict)}
    return [*hydra_faults(hydra, named_by_user(config)), *place_faults(folders)]


def _is_missing(node: Any, name: str) -> bool:
    from omegaconf import OmegaConf

    return OmegaConf.is_missing(node, name)


def _is_interpolation(node: Any, name: str) -> bool:
    from omegaconf import OmegaConf

    return OmegaConf.is_interpolation(node, name)


def _names(node: Any) -> list[str]:
    """The keys of a config node, those with missing values as well (which ``in`` denies)."""
    return [str(name) for name in node]


def _hydra_fault(error: Exception) -> Fault:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    said = [*str(error).splitlines(), *str(error.__cause__ or "").splitlines()]
    noise = ("See http", "Set the environment", "full_key", "object_type", "reference_type")
    text = " ".join(line.strip() for line in said if line.strip() and not line.strip().startswith(noise))
    text = text.partition(" Config search path:")[0].rstrip(".") or type(error).__name__
    if not isinstance(error, HydraException | OmegaConfBaseException):  # they met a value that they do not expect
        text = f"Hydra cannot put it together ({text}). Leave out words until it can, and correct the one it was"
    return Fault("config", text)


def _option(argv: Sequence[str], *names: str) -> str | None:
    """The value of an option in ``argv``, given as ``--name value`` or ``--name=value``."""
    for index, word in enumerate(argv):
        head, equals, tail = word.partition("=")
        if head in names:
            return tail if equals else argv[index + 1] if index + 1 < len(argv) else None
    return None
