"""Who proposes the trials of a search, and who ends those that are hopeless."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.config.search_space import Choice, Parameter, SearchSpace, Span
from genrec.contracts import GenrecError
from genrec.sweeps.storage import load_optuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


def trial_seed(seed: int, number: int) -> int:
    """The seed of one trial, so that a proposal depends on the trials before it and not on when the search was begun
    or continued."""
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)[0])


def build_sampler(
    sampler: str | Mapping[str, Any],
    space: SearchSpace,
    *,
    seed: int,
    number: int,
    startup_trials: int,
    objectives: int,
) -> BaseSampler:
    """The sampler of one trial. A mapping with ``_target_`` is built with ``seed`` where it takes one."""
    samplers = load_optuna().samplers
    own = trial_seed(seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own options are called experimental for years
        if isinstance(sampler, Mapping):
            return _own_sampler(sampler, own)
        if sampler == "cmaes":
            _needs_cmaes(objectives)
            # Choices are not for CMA-ES; TPE learns about them meanwhile, where it would draw them at random.
            other = samplers.TPESampler(seed=own, n_startup_trials=startup_trials, constant_liar=True)
            return samplers.CmaEsSampler(
                seed=own, n_startup_trials=startup_trials, independent_sampler=other, warn_independent_sampling=False
            )
        if sampler == "grid":
            return samplers.PartialFixedSampler(_point(space, number), samplers.RandomSampler(own))
        if sampler == "random":
            return samplers.RandomSampler(own)
        joint = objectives == 1  # parameters are looked at together, and those of each condition among themselves
        conditional = joint and any(parameter.conditions for parameter in space.parameters)
        return samplers.TPESampler(
            seed=own,
            n_startup_trials=startup_trials,
            multivariate=joint,
            group=conditional,
            constant_liar=True,
            warn_independent_sampling=False,
        )


def _own_sampler(node: Mapping[str, Any], seed: int) -> BaseSampler:
    from hydra.utils import instantiate

    from genrec.config.signatures import read_signature

    takes_seed = "seed" in read_signature(str(node["_target_"])).parameters
    return instantiate({**({"seed": seed} if takes_seed else {}), **node})


def _needs_cmaes(objectives: int) -> None:
    if objectives > 1:
        raise GenrecError("hydra.sweeper.sampler=cmaes searches for one objective; sampler=tpe for several.")
    if find_spec("cmaes") is None:
        raise GenrecError("hydra.sweeper.sampler=cmaes needs the package cmaes: pip install 'genrec[sweep]'")


def _point(space: SearchSpace, number: int) -> dict[str, Any]:
    """The values of the point of the grid that is a trial's turn."""
    points = space.grid()
    overrides = dict(text.split("=", 1) for text in points[number % len(points)])
    by_element = {parameter.element: parameter for parameter in space.parameters}
    return {by_element[name].key: _value(by_element[name].domain, text) for name, text in overrides.items()}


def _value(domain: Choice | Span, text: str) -> Any:
    if isinstance(domain, Choice):
        return text
    return int(text) if domain.whole else float(text)


def suggest(trial: Trial, parameter: Parameter) -> str:
    """What a trial is to try for a parameter, spelled as in an override."""
    key, domain = parameter.key, parameter.domain
    if isinstance(domain, Choice):
        return trial.suggest_categorical(key, domain.values)
    if domain.whole:
        step = int(domain.step or 1)
        return domain.text(trial.suggest_int(key, int(domain.low), int(domain.high), log=domain.log, step=step))
    return domain.text(trial.suggest_float(key, domain.low, domain.high, log=domain.log, step=domain.step))


def describe_space(space: SearchSpace) -> dict[str, str]:
    """Every parameter with what it may be, in words that tell two spaces apart."""
    return {
        parameter.key: " if ".join(
            [repr(parameter.domain), *(f"{bound.key}={list(bound.values)}" for bound in parameter.conditions)]
        )
        for parameter in space.parameters
    }


def pruner_node(
    pruner: str | Mapping[str, Any],
    *,
    startup_trials: int,
    warmup_epochs: int,
    reduction: int,
    max_epochs: int | None = None,
) -> dict[str, Any] | None:
    """The pruner as a node that every job can build; None where nothing is pruned.

    Hyperband divides trials into brackets by ``max_epochs``, the most that one may take: were it left to the trials
    that have finished, every job would divide anew.
    """
    first = max(1, warmup_epochs)
    if isinstance(pruner, Mapping):
        node = {str(key): value for key, value in pruner.items()}
        return _with_bound(node, max_epochs) if str(node.get("_target_")).endswith(".HyperbandPruner") else node
    if pruner == "median":
        options = {"n_startup_trials": startup_trials, "n_warmup_steps": first}
        return {"_target_": "optuna.pruners.MedianPruner", **options}
    if pruner == "hyperband":
        options = {"min_resource": first, "reduction_factor": reduction}
        return _with_bound({"_target_": "optuna.pruners.HyperbandPruner", **options}, max_epochs)
    if pruner == "asha":
        options = {"min_resource": first, "reduction_factor": reduction}
        return {"_target_": "optuna.pruners.SuccessiveHalvingPruner", **options}
    return None


def _with_bound(node: dict[str, Any], max_epochs: int | None) -> dict[str, Any]:
    if node.get("max_resource", "auto") != "auto":
        return node
    if max_epochs is None:
        raise GenrecError(
            "hydra.sweeper.pruner=hyperband divides trials by how many epochs one may take, and trainer.max_epochs "
            "says nothing. Set it, or take hydra.sweeper.pruner=asha, which needs no bound."
        )
    return {**node, "max_resource": max_epochs}
