"""The page that ``--help`` prints, read from the YAML files themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from genrec.config.root import conf_dir

_GROUP_LINE = re.compile(r"^  - (?P<name>[\w@.]+): (?P<default>\S+)\s+# (?P<meaning>.*)$")
_KEY_LINE = re.compile(r"^(?P<name>\w+): .*?\s# (?P<meaning>.*)$")
_EXAMPLE_LINE = re.compile(r"^#   (?P<text>python .*)$")


def examples() -> list[str]:
    """The commands that ``--help`` shows, as they stand in ``conf/config.yaml``."""
    return [re.split(r"\s{2,}", line)[0] for line in _matches(_EXAMPLE_LINE, "text")]


def _matches(pattern: re.Pattern[str], name: str) -> list[str]:
    lines = (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines()
    return [match[name] for match in map(pattern.match, lines) if match]


def help_text(config_dir: str | None = None) -> str:
    """Groups with their options, root keys with their meaning, and examples: all read from the YAML files."""
    folders = [conf_dir(), *([Path(config_dir)] if config_dir and Path(config_dir).is_dir() else [])]
    names, defaults = _matches(_GROUP_LINE, "name"), _matches(_GROUP_LINE, "default")
    meanings = dict(zip(names, _matches(_GROUP_LINE, "meaning"), strict=True))
    chosen = dict(zip(names, defaults, strict=True))
    lines = ["genrec trains a recommender and reports honest test metrics beside its baselines.", ""]
    lines += ["Usage: python -m genrec.run [group=option ...] [key=value ...] [-m key=value1,value2 ...]", ""]
    lines += ["Groups: group=option chooses a file of conf/, group.key=value changes a value in it (* is the default)"]
    extra = [name for name in _folders(folders) if name not in chosen and name != "hydra"]
    for name in [*(name for name in chosen if "@" not in name), *extra]:
        options = [f"{option}*" if option == chosen.get(name) else option for option in _options(folders, name)]
        lines += [f"  {name:<12}{' '.join(options) or '-'}", f"  {'':<12}  {meanings.get(name, 'yours')}"]
    lines += ["", "Keys"]
    keys = dict(zip(_matches(_KEY_LINE, "name"), _matches(_KEY_LINE, "meaning"), strict=True))
    keys |= {name.partition("@")[2]: meaning for name, meaning in meanings.items() if "@" in name}
    lines += [f"  {name:<22}{meaning}" for name, meaning in keys.items()]
    lines += ["", "Examples", *(f"  {line}" for line in _matches(_EXAMPLE_LINE, "text")), ""]
    lines += [
        "--cfg job shows the composed config, --config-dir ./mine adds your own groups, -m runs all combinations."
    ]
    return "\n".join(lines) + "\n"


def _folders(roots: Iterable[Path]) -> list[str]:
    return list(dict.fromkeys(path.name for root in roots for path in sorted(root.iterdir()) if path.is_dir()))


def _options(roots: Iterable[Path], group: str) -> list[str]:
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})
