"""Samplers are made anew for each trial; pruners are nodes that each job can build."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate

from genrec.config.search_space import SearchSpace, read_space
from genrec.contracts import GenrecError
from genrec.sweeps.samplers import build_sampler, describe_space, pruner_node, suggest, trial_seed


def space_of(*words: str, **conditions: str) -> SearchSpace:
    return read_space(OverridesParser.create().parse_overrides(list(words)), conditions=conditions)[0]


def sampler_of(sampler: Any, space: SearchSpace, number: int = 0, objectives: int = 1) -> optuna.samplers.BaseSampler:
    return build_sampler(sampler, space, seed=1, number=number, startup_trials=4, objectives=objectives)


def test_every_trial_has_a_seed_of_its_own() -> None:
    seeds = {trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
    assert trial_seed(3, 7) == trial_seed(3, 7)


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        ("tpe", optuna.samplers.TPESampler),
        ("cmaes", optuna.samplers.CmaEsSampler),
        ("random", optuna.samplers.RandomSampler),
        ({"_target_": "optuna.samplers.NSGAIISampler", "population_size": 7}, optuna.samplers.NSGAIISampler),
        ({"_target_": "optuna.samplers.BruteForceSampler"}, optuna.samplers.BruteForceSampler),
    ],
)
def test_samplers_are_named_or_built(sampler: Any, kind: type) -> None:
    assert type(sampler_of(sampler, space_of("a=1,2", "b=interval(0,1)"))) is kind


def test_an_own_sampler_is_seeded_like_the_others() -> None:
    node = {"_target_": "optuna.samplers.RandomSampler"}
    space = space_of("a=interval(0,1)")
    drawn = []
    for sampler in (node, "random"):
        study = optuna.create_study(sampler=sampler_of(sampler, space, number=3))
        drawn.append(suggest(study.ask(), space.parameters[0]))
    assert drawn[0] == drawn[1]


def test_a_grid_takes_each_point_in_its_turn() -> None:
    space = space_of("a=1,2", "b=range(1,4)", "c=range(0.1,0.35,0.1)")
    points = []
    for number in range(len(space.grid())):
        study = optuna.create_study(sampler=sampler_of("grid", space, number))
        trial = study.ask()
        points.append(space.propose(lambda parameter, trial=trial: suggest(trial, parameter)))
    assert points == space.grid()


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=x,y", {"x", "y"}),
        ("a=range(2,5)", {"2", "3", "4"}),
        ("a=range(1,10,4)", {"1", "5", "9"}),
        ("a=int(interval(1,3))", {"1", "2", "3"}),
        ("a=tag(log,range(1,4))", {"1", "2", "3"}),
        ("a=range(0.1,0.35,0.1)", {"0.1", "0.2", "0.3"}),
    ],
)
def test_what_is_drawn_is_all_that_the_domain_holds(word: str, values: set[str]) -> None:
    (parameter,) = space_of(word).parameters
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(1))
    assert {suggest(study.ask(), parameter) for _ in range(60)} == values


def test_a_log_scale_draws_every_decade_alike() -> None:
    (parameter,) = space_of("lr=tag(log,interval(1e-6,1))").parameters
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(1))
    drawn = [float(suggest(study.ask(), parameter)) for _ in range(300)]
    low = sum(value < 1e-3 for value in drawn)
    assert 110 < low < 190 and all(1e-6 <= value <= 1 for value in drawn)


def test_cmaes_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GenrecError, match="one objective"):
        sampler_of("cmaes", space_of("a=interval(0,1)"), objectives=2)
    monkeypatch.setattr("genrec.sweeps.samplers.find_spec", lambda name: None)
    with pytest.raises(GenrecError, match=r"pip install 'genrec\[sweep\]'"):
        sampler_of("cmaes", space_of("a=interval(0,1)"))


def test_spaces_are_described_apart() -> None:
    one = describe_space(space_of("a=1,2", "b=interval(0,1)"))
    assert (
        one
        == describe_space(space_of("a=1,2", "b=interval(0,1)"))
        != describe_space(space_of("a=1,2", "b=interval(0,2)"))
    )
    assert one != describe_space(space_of("a=1,2", "b=interval(0,1)", b="a=1"))


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("median", optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)),
        ("hyperband", optuna.pruners.HyperbandPruner(min_resource=2, max_resource=9, reduction_factor=4)),
        ("asha", optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=4)),
        ({"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.1}, optuna.pruners.ThresholdPruner(lower=0.1)),
    ],
)
def test_pruners_are_nodes_that_a_job_builds(pruner: Any, expected: optuna.pruners.BasePruner) -> None:
    node = pruner_node(pruner, startup_trials=3, warmup_epochs=2, reduction=4, max_epochs=9)
    built = instantiate(node)
    assert type(built) is type(expected) and vars(built) == vars(expected)
    assert pruner_node("none", startup_trials=3, warmup_epochs=2, reduction=4) is None


@pytest.mark.parametrize("pruner", ["hyperband", {"_target_": "optuna.pruners.HyperbandPruner", "min_resource": 2}])
def test_hyperband_needs_a_bound_on_epochs(pruner: Any) -> None:
    options = {"startup_trials": 3, "warmup_epochs": 2, "reduction": 4}
    with pytest.raises(GenrecError, match=r"trainer\.max_epochs says nothing.*pruner=asha"):
        pruner_node(pruner, **options)
    assert (pruner_node(pruner, **options, max_epochs=9) or {})["max_resource"] == 9
    own = {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 30}
    assert pruner_node(own, **options) == own


def test_the_brackets_of_hyperband_do_not_depend_on_what_has_finished() -> None:
    """Every job builds the pruner anew: a trial that stopped after 3 epochs must not move another to a new bracket."""
    study = optuna.create_study(study_name="s")
    trials = [study.ask() for _ in range(12)]
    found = []
    for trial, epochs in zip(trials, (3, 27), strict=False):
        trial.report(0.5, epochs)
        study.tell(trial, 0.5)
        node = pruner_node("hyperband", startup_trials=1, warmup_epochs=1, reduction=3, max_epochs=27)
        pruner: Any = instantiate(node)
        pruner.prune(study, study.get_trials()[-1])
        found.append([pruner._get_bracket_id(study, trial) for trial in study.get_trials()])
    assert found[0] == found[1] and len(set(found[0])) > 1
