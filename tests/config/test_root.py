"""The whole conf/ tree composes and checks; faults are found all at once; YAML and constructors tell the same story."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genrec.config import RootConfig, check, check_or_raise, compose_config, conf_dir
from genrec.config.command_line import Composer, command_faults
from genrec.contracts import GenrecError

CONF = conf_dir()
FaultsOf = Callable[..., dict[str, str]]
PLACEHOLDER = "/nowhere"  # for keys that have no default, such as data.path of data=folder

# YAML values that differ from the constructor's default on purpose: "group/option: key".
INTENDED = {
    "hardware/cpu: accelerator",
    "hardware/gpu: accelerator",
    "hardware/gpu: precision",
    "hardware/mps: accelerator",
    *(f"hardware/{name}: {key}" for name in ("ddp_cpu", "fsdp") for key in ("accelerator", "devices", "strategy")),
    *(f"hardware/{name}: {key}" for name in ("ddp", "torchrun", "slurm") for key in ("devices", "strategy")),
    *(f"hardware/{name}: launcher" for name in ("torchrun", "slurm")),
    "data/lastfm: edge_weight",
    "data/synthetic_music: edge_weight",
    *(f"data/synthetic_clicks: {key}" for key in ("tasks", "infer", "group", "timestamp")),
    *(f"data/movielens_ctr: {key}" for key in ("infer", "group", "timestamp")),
}

# Their nested nodes are recipes of their own, or classes to be exchanged for others: only right names are asked for.
RECIPES = {"tokenizer/rqvae", "model/bpr_mf", "model/gat", "model/lightgcn", "model/xsimgcl"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "sweep"))


def missing_keys(group: str, option: str) -> list[str]:
    """Overrides that give a value to every key of a file that has none."""
    text = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")
    return [f"{group}.{key}={PLACEHOLDER}" for key in re.findall(r"^(\w+): \?\?\?", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as made:
        yield made


@pytest.mark.parametrize("index", range(max(len(options(group)) for group in GROUPS)))
def test_every_option_composes_and_checks(composer: Composer, index: int) -> None:
    """The options of all groups side by side, as many compositions as the largest group has options."""
    chosen = [(group, options(group)[index % len(options(group))]) for group in GROUPS if group != "experiment"]
    overrides = [f"{group}={option}" for group, option in chosen]
    overrides += [text for group, option in chosen for text in missing_keys(group, option)]
    assert command_faults(composer, overrides) == []


@pytest.mark.parametrize("recipe", options("experiment") + [f"sweep/{name}" for name in options("sweep")])
def test_every_recipe_is_short_and_valid(composer: Composer, recipe: str) -> None:
    group, _, name = recipe.rpartition("/")
    path = CONF / (group or "experiment") / f"{name}.yaml"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25
    assert command_faults(composer, [f"{group or 'experiment'}={name}"]) == []


def test_every_root_key_is_explained_on_its_line() -> None:
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    explained = set(re.findall(r"^(\w+):.*\s# \S", text, re.MULTILINE)) | set(
        re.findall(r"^  - (\w+)(?:@\S+)?: .*# \S", text, re.MULTILINE)
    )
    assert {name for name in RootConfig.__dataclass_fields__ if name != "baselines"} <= explained
    lines = [line for line in text.splitlines() if re.match(r"^(\w+:|  - \w)", line) and "_self_" not in line]
    assert [line for line in lines if "#" not in line and not line.startswith(("defaults:", "hydra:"))] == []


def test_the_typed_root_has_the_defaults_of_the_yaml(faults_of: FaultsOf) -> None:
    written = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"), resolve=False)
    typed: Any = OmegaConf.to_container(OmegaConf.structured(RootConfig), resolve=False)
    assert isinstance(written, dict)
    for key in ("seed", "monitor", "k_values", "filter_seen", "output_dir", "runs_dir", "resume", "progress"):
        assert written[key] == typed[key], key


# ---- what check finds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faults_of(composer: Composer) -> FaultsOf:
    return lambda *overrides: {fault.key: str(fault) for fault in command_faults(composer, overrides)}


def test_the_default_config_has_no_fault() -> None:
    check_or_raise(compose_config())


def test_all_faults_are_reported_at_once(faults_of: FaultsOf) -> None:
    found = faults_of(
        "optimizer.lr=fast", "+model.num_layer=2", "trainer.max_epochs=2.5", "trainer.batch_size=ten", "+sede=1"
    )
    assert set(found) == {"optimizer.lr", "model.num_layer", "trainer.max_epochs", "trainer.batch_size", "sede"}
    assert "expected a number" in found["optimizer.lr"] and "optimizer.lr=fast" in found["optimizer.lr"]
    assert "Did you mean num_layers?" in found["model.num_layer"]
    assert "expected a whole number" in found["trainer.max_epochs"]
    assert "Did you mean seed?" in found["sede"]


def test_the_exception_lists_every_fault() -> None:
    with pytest.raises(GenrecError) as caught:
        check_or_raise(compose_config(["optimizer.lr=fast", "+model.num_layer=2"]))
    assert "2 faults" in str(caught.value) and "num_layers" in str(caught.value) and "fast" in str(caught.value)


@pytest.mark.parametrize(
    "override",
    ["optimizer.lr=1", "optimizer.betas=[0.8,0.9]", "trainer.patience=null", "+optimizer.amsgrad=true", "seed=0"],
)
def test_good_values_pass(faults_of: FaultsOf, override: str) -> None:
    assert faults_of(override) == {}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("optimizer.lr=null", "optimizer.lr"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("model.num_layers=true", "model.num_layers"),
        ("seed=-1", "seed"),
        ("k_values=[]", "k_values"),
        ("k_values=[0]", "k_values"),
        ("+optimizer.forech=true", "optimizer.forech"),
        ("data.source.num_users=many", "data.source.num_users"),
        ("+baselines.popularity.typo=1", "baselines.popularity.typo"),
        ("optimizer._target_=torch.optim.AdmW", "optimizer._target_"),
    ],
)
def test_bad_values_are_named_by_their_path(faults_of: FaultsOf, override: str, key: str) -> None:
    assert list(faults_of(override)) == [key]


def test_a_required_argument_that_is_not_given_is_a_fault() -> None:
    config = compose_config()
    OmegaConf.set_struct(config, False)
    config.callbacks = {"linear": {"_target_": "torch.nn.Linear", "in_features": 3}}
    assert [fault.key for fault in check(config)] == ["callbacks.linear.out_features"]


def test_positional_arguments_of_a_partial_node_come_later() -> None:
    config = compose_config()
    assert config.optimizer._partial_ and "params" not in config.optimizer
    config.optimizer._partial_ = False
    assert [fault.key for fault in check(config)] == ["optimizer.params"]


def test_a_missing_value_is_reported_once_with_how_to_give_it(faults_of: FaultsOf) -> None:
    found = faults_of("data=folder")
    assert list(found) == ["data.path"] and "data.path=" in found["data.path"]


def test_a_fault_is_reported_where_a_value_comes_from_and_not_where_it_is_used() -> None:
    config = compose_config()
    OmegaConf.set_struct(config, False)
    config["k_values"] = OmegaConf.create([5, 10])
    untyped = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    untyped["k_values"] = ["ten"]  # pyright: ignore[reportIndexIssue, reportArgumentType]
    assert [fault.key for fault in check(untyped)] == ["k_values"]  # pyright: ignore[reportArgumentType]


def test_a_broken_interpolation_is_a_fault(faults_of: FaultsOf) -> None:
    found = faults_of("model.dropout=${nowhere.at.all}")
    assert list(found) == ["model.dropout"] and "cannot be resolved" in found["model.dropout"]


@pytest.mark.parametrize(
    ("monitor", "nearest"),
    [
        ("val/recall@7", "val/recall@5"),
        ("val/recal@10", "val/recall@10"),
        ("val/recall", "val/recall@20"),
        ("recall@10", "val/recall@10"),
        ("test/recall@10", "val/recall@10"),
    ],
)
def test_monitor_must_be_a_metric_that_is_computed(faults_of: FaultsOf, monitor: str, nearest: str) -> None:
    found = faults_of(f"monitor={monitor}")
    assert list(found) == ["monitor"]
    assert f"Did you mean {nearest}?" in found["monitor"] and "5|10|20" in found["monitor"]


@pytest.mark.parametrize("monitor", ["val/ndcg@20", "val/loss", "null"])
def test_monitor_accepts_what_is_computed(faults_of: FaultsOf, monitor: str) -> None:
    assert faults_of(f"monitor={monitor}") == {}


def test_other_k_values_do_not_break_a_trainer_that_monitors_recall_at_10(faults_of: FaultsOf) -> None:
    """Fault of an original: ``val_recall@10`` hard-coded, so that another ``eval_k`` stopped at once."""
    assert faults_of("trainer=advanced", "k_values=[5]") == {}


def test_compose_config_needs_no_running_hydra(tmp_path: Path) -> None:
    config = compose_config(["model.num_layers=3"], output_dir=tmp_path)
    assert config.output_dir == str(tmp_path) and config.model.num_layers == 3 and "hydra" not in config
    assert compose_config(["output_dir=here"]).output_dir == "here"


def test_compose_config_raises_for_what_cannot_be_composed() -> None:
    with pytest.raises(GenrecError, match="Did you mean tiger"):
        compose_config(["model=tigr"])


# ---- YAML and constructors ------------------------------------------------------------------------------------------


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a ``_target_`` of ours, with its path in the file."""
    if isinstance(value, dict):
        if str(value.get("_target_", "")).startswith("genrec."):
            yield path, value
        for key, item in value.items():
            yield from nodes(item, f"{path}.{key}" if path else str(key))


def our_files() -> list[str]:
    found = []
    for path in sorted(CONF.rglob("*.yaml")):
        name = path.relative_to(CONF).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        if "_target_: genrec." in text and not name.startswith(("config", "experiment", "sweep", "hydra")):
            found.append(name)
    return found


@pytest.mark.parametrize("name", our_files())
def test_yaml_lists_every_parameter_with_the_constructors_default(name: str) -> None:
    from hydra.utils import get_object

    loaded: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    inherits = any(isinstance(item, str) for item in loaded.pop("defaults", []))
    top = str(loaded.get("_target_", ""))
    for path, node in nodes(loaded):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        given = {key for key in node if key not in ("_target_", "_partial_", "_recursive_", "_convert_")}
        expected = {key for key in parameters if key not in ("spec", "params")}
        if path and top and name in RECIPES:
            assert given <= expected, f"{path}: unknown {given - expected}"
            continue
        if not inherits:
            assert given == expected, f"{path or 'the file'}: missing {expected - given}, unknown {given - expected}"
        for key in given:
            label = f"{name}: {f'{path}.' if path else ''}{key}"
            value, default = node[key], parameters[key].default
            interpolated = isinstance(value, str) and ("${" in value or value == "???")
            if interpolated or isinstance(value, dict) or default is inspect.Parameter.empty or label in INTENDED:
                continue
            if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
                target: Any = get_object(node["_target_"])
                default = target.__dataclass_fields__[key].default_factory()
            default = list(default) if isinstance(default, tuple) else default
            assert value == default, f"{label} is {value!r}, the constructor's default is {default!r}"


@pytest.mark.parametrize("name", [path.relative_to(CONF).as_posix() for path in sorted(CONF.rglob("*.yaml"))])
def test_every_file_is_plain_yaml_that_begins_with_what_it_is(name: str) -> None:
    lines = (CONF / name).read_text(encoding="utf-8").splitlines()
    yaml.safe_load("\n".join(lines))
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert re.match(r"^# \S.*[.:)]$|^# \S.*\S$", first), f"{name} should open with a comment saying what it is"


@pytest.mark.parametrize("override", ["filter_seen=true", "k_values=[1]"])
def test_the_model_is_not_scored_otherwise_than_its_baselines(override: str) -> None:
    """Fault: seen items masked for one model and not for the others in the same table."""
    assert check(compose_config([override, "trainer.monitor=val/loss"])) == []
    [fault] = check(compose_config([f"trainer.{override}", "trainer.monitor=val/loss"]))
    assert f"Did you mean {override}?" in str(fault)
