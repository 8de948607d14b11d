"""``seeds=5``: one command, several seeds, and the spread of what they reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from genrec.contracts import GenrecError

_WORD = re.compile(r"^\+{0,2}seeds=(?P<value>.*)$")
_OWN = re.compile(r"^\+{0,2}seed=(?P<value>.*)$")
_SHOWS = re.compile(r"^(--cfg|--info|-c$)")  # nothing is run
MULTIRUN = ("-m", "--multirun")
_DEFAULT_SEED = 42
_LARGEST_SEED = 2**32 - 1  # what NumPy takes
_MOST = 1000  # each is a run


def with_seeds(words: Sequence[str], compose: Callable[[Sequence[str]], Any] | None = None) -> list[str]:
    """The words of a command line, ``seeds=3`` spelled as a multirun over three seeds, the first the config's own.

    ``seeds=[1,7]`` names them. Without such a word, or where the config is only shown, nothing changes. ``compose``
    gives the config of a command line, or None where it has none (None: ``composed``).
    """
    given = [match["value"] for word in words if (match := _WORD.match(word))]
    if not given or given[-1] == "null" or any(_SHOWS.match(word) for word in words):
        return list(words)
    kept = [word for word in words if not _WORD.match(word)]
    config = (compose or composed)(kept)
    if config is not None and not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        raise GenrecError(
            f"seeds={_short(given[-1])} multiplies a grid, and a search proposes its trials one by one. "
            "Search with one seed, then run the best with seeds=."
        )
    own = [match["value"] for word in kept if (match := _OWN.match(word))]
    if own and _whole(own[-1]) is None:
        raise GenrecError(
            f"seeds={_short(given[-1])} and seed={_short(own[-1])} both name seeds. Give one of them, or as seed "
            f"a whole number of at most {_LARGEST_SEED}."
        )
    seeds = _seeds(given[-1], int(own[-1]) if own else _DEFAULT_SEED if config is None else int(config.seed))
    flags = [] if set(kept) & set(MULTIRUN) else ["-m"]
    place = next(index for index, word in enumerate(words) if _WORD.match(word))  # options may follow: --cfg job
    before, after = ([word for word in part if not (_WORD.match(word) or _OWN.match(word))]
                     for part in (words[:place], words[place:]))  # fmt: skip
    return [*flags, *before, f"seed={','.join(map(str, seeds))}", *after]


def _seeds(text: str, first: int) -> list[int]:
    count = _whole(text)
    if count is not None and 0 < count <= _MOST:
        return list(range(first, first + count))
    parts = [part.strip() for part in text[1:-1].split(",")] if text[:1] + text[-1:] == "[]" else []
    seeds = [seed for part in parts if (seed := _whole(part)) is not None]
    if not parts or len(seeds) < len(parts) or len(set(seeds)) < len(seeds):
        raise GenrecError(
            f"seeds={_short(text)}: give how many, seeds=5 (at most {_MOST}), or which, seeds=[1,2,3] "
            f"(whole numbers of at most {_LARGEST_SEED}, all different)."
        )
    return seeds


def _whole(text: str) -> int | None:
    """The seed that a word spells; None where it spells none. Python itself reads no more than 4300 digits."""
    value = int(text) if text.isdecimal() and len(text) < 20 else None
    return value if value is not None and value <= _LARGEST_SEED else None


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


def composed(words: Sequence[str]) -> Any:
    """The config of a command line, those of its words left out that name several values; None where it has none."""
    from genrec.config.command_line import Composer, options_of

    args = options_of(words)
    with Composer(args.config_dir, args.config_name or "config", args.config_path) as composer:
        config = composer.try_compose([word for word in args.overrides if not _sweeps(word)])
    return None if isinstance(config, Exception) else config


def _sweeps(word: str) -> bool:
    """Whether a word may name several values; such a one says nothing of the seed."""
    value = word.partition("=")[2]
    return "," in value and value[:1] not in "[{'\""
