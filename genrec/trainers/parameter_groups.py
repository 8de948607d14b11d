"""Which parameters move together: by kind (matrices, and what is spared weight decay) and by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any

from annotated_types import MinLen
from torch import nn

from genrec.annotations import NotNegative, check_fields
from genrec.contracts import GenrecError
from genrec.nn.embedding import TokenEmbedding
from genrec.nn.fields import FieldEmbedding

_NAMES_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """What is special about the parameters whose names match (``encoder.*``; a star matches dots as well).

    ``lr_scale`` multiplies their learning rate; 0 freezes them: they get no gradient. ``weight_decay`` takes the place
    of the optimizer's (None: the optimizer's) for what is decayed at all. ``hidden`` False keeps their matrices from an
    optimizer for hidden matrices only (muon): the input and output layers of a network.
    """

    match: Annotated[str, MinLen(1)]
    lr_scale: NotNegative = 1.0
    weight_decay: NotNegative | None = None
    hidden: bool = True

    @classmethod
    def of(cls, entry: Mapping[str, Any], place: str) -> ParameterGroup:
        """An entry of ``trainer.parameter_groups``; ``place`` is its key in messages."""
        known = [item.name for item in fields(cls)]
        unknown = [name for name in entry if name not in known]
        if unknown:
            raise GenrecError(f"{place}.{unknown[0]}: no such key. It takes: {', '.join(known)}.")
        if not entry.get("match"):
            raise GenrecError(f"{place}.match: give a pattern of parameter names, for example 'encoder.*'.")
        group = cls(**entry)
        check_fields(group, place)
        return group


def parameter_groups(
    model: nn.Module,
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    decay_embeddings: bool = True,
    separate_hidden: bool = False,
) -> list[dict[str, Any]]:
    """The groups an optimizer is given: of what no entry matches, then of each entry, the first match deciding.

    Each is split into matrices and what no weight decay may shrink: vectors and scalars (norms, biases) and, by choice,
    embeddings. ``separate_hidden`` also sets apart the matrices of linear layers (``hidden`` True). Tables with sparse
    gradients are set apart always (``sparse`` True). A group holds the ``names`` of its parameters and its
    ``lr_scale``. Frozen parameters are in none of them.
    """
    settings = [ParameterGroup.of(entry, f"trainer.parameter_groups[{i}]") for i, entry in enumerate(entries)]
    homes = _homes(model, settings)
    embeddings = _weights_of(model, (nn.Embedding, TokenEmbedding, FieldEmbedding))
    sparse = _weights_of(model, (FieldEmbedding,), lambda module: module.sparse_gradients)
    sparse |= _weights_of(model, (nn.Embedding,), lambda module: module.sparse)
    linear = _weights_of(model, (nn.Linear,)) - embeddings
    groups: dict[tuple[int, bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        place = homes[name]
        group = settings[place] if place >= 0 else ParameterGroup(match="*")
        if not parameter.requires_grad or group.lr_scale == 0:
            continue
        spared = parameter.ndim < 2 or (not decay_embeddings and id(parameter) in embeddings)
        hidden = separate_hidden and group.hidden and id(parameter) in linear
        key = (place, spared, not hidden, id(parameter) in sparse)
        if key not in groups:
            decay = 0.0 if spared else group.weight_decay
            groups[key] = {"params": [], "names": [], "lr_scale": float(group.lr_scale)}
            groups[key] |= {} if decay is None else {"weight_decay": float(decay)}
            groups[key] |= {"hidden": hidden} if separate_hidden else {}
            groups[key] |= {"sparse": True} if id(parameter) in sparse else {}
        groups[key]["params"].append(parameter)
        groups[key]["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def frozen_parameters(model: nn.Module, entries: Sequence[Mapping[str, Any]]) -> list[nn.Parameter]:
    """The parameters that would be trained, were they not in a group whose ``lr_scale`` is 0."""
    settings = [ParameterGroup.of(entry, f"trainer.parameter_groups[{i}]") for i, entry in enumerate(entries)]
    still = {name for name, place in _homes(model, settings).items() if place >= 0 and settings[place].lr_scale == 0}
    return [item for name, item in model.named_parameters() if name in still and item.requires_grad]


def _homes(model: nn.Module, settings: Sequence[ParameterGroup]) -> dict[str, int]:
    """The entry that each parameter belongs to, -1 for none; a shared parameter is known by all its names."""
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    homes = {}
    for name, parameter in model.named_parameters():
        matches = [
            index
            for index, group in enumerate(settings)
            if any(fnmatchcase(alias, group.match) for alias in aliases[id(parameter)])
        ]
        homes[name] = matches[0] if matches else -1
    for index, group in enumerate(settings):
        if index not in homes.values():
            everything = [name for names in aliases.values() for name in names]
            raise GenrecError(_nothing_matches(f"trainer.parameter_groups[{index}].match", group.match, everything))
    return homes


def _nothing_matches(key: str, pattern: str, names: Sequence[str]) -> str:
    if any(fnmatchcase(name, pattern) for name in names):
        return f"{key}={pattern}: all that it matches is matched by an entry before it. Put the narrower pattern first."
    near = get_close_matches(pattern, names, n=_NAMES_SHOWN, cutoff=0.4)
    shown = list(dict.fromkeys([*near, *names]))[:_NAMES_SHOWN]
    more = f" (of {len(names)})" if len(names) > len(shown) else ""
    return f"{key}={pattern}: no parameter has such a name. Some names{more}: {', '.join(shown)}."


def _weights_of(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], chosen: Callable[[Any], bool] = lambda module: True
) -> set[int]:
    """The ids of the weights (tables, matrices) that modules of these kinds, if ``chosen``, hold themselves."""
    modules = (module for module in model.modules() if isinstance(module, kinds) and chosen(module))
    found = (module.parameters(recurse=False) for module in modules)
    return {id(parameter) for parameters in found for parameter in parameters if parameter.ndim == 2}
