"""A config as plain Python values, remembering which came from interpolations and which could not be had."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from genrec.config.faults import Fault


class _Unresolved:
    def __repr__(self) -> str:
        return "<known only while Hydra runs>"


UNRESOLVED = _Unresolved()  # stands for values such as ${hydra:runtime.output_dir} outside of a Hydra run


class PlainConfig:
    """``values`` is the resolved tree, ``interpolations`` maps key paths to ``${...}``, ``faults`` are the holes."""

    def __init__(self, config: DictConfig) -> None:
        self.interpolations: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.values: dict[str, Any] = self._mapping(config, "")

    def _mapping(self, node: DictConfig, path: str) -> dict[str, Any]:
        found = {}
        for name in node:
            place = f"{path}.{name}" if path else str(name)
            if place == "hydra":
                continue
            found[str(name)] = self._value(node, name, place)
        return found

    def _value(self, node: Any, name: Any, place: str) -> Any:
        if OmegaConf.is_missing(node, name):
            self._missing(place)
            return UNRESOLVED
        if OmegaConf.is_interpolation(node, name):
            text = str(node._get_node(name)._value())
            self.interpolations[place] = text
            try:
                value = node[name]
            except InterpolationToMissingValueError:  # reported where the value is missing
                return UNRESOLVED
            except OmegaConfBaseException as error:
                if "${hydra:" not in str(error) and "hydra:" not in text and "HydraConfig" not in str(error):
                    self._broken(place, text, error)
                return UNRESOLVED
            except ValueError as error:  # the hydra resolver outside of a run
                if "HydraConfig" not in str(error):
                    raise
                return UNRESOLVED
        else:
            value = node[name]
        if isinstance(value, DictConfig):
            return None if value._is_none() else self._mapping(value, place)
        if isinstance(value, ListConfig):
            if value._is_none():
                return None
            return [self._value(value, index, f"{place}[{index}]") for index in range(len(value))]
        return value

    def _missing(self, place: str) -> None:
        self.faults.append(Fault(place, f"it has no default, so give it as {place}=<value>"))

    def _broken(self, place: str, text: str, error: Exception) -> None:
        reason = str(error).splitlines()[0]
        self.faults.append(Fault(place, f"the interpolation cannot be resolved ({reason})", text))
