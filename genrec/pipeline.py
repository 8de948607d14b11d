"""A run, step by step: data -> upstream stages -> model -> fit -> test -> run folder."""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import genrec
from genrec.artifacts import Cache, atomic_path, read_json, write_json
from genrec.config import check_or_raise
from genrec.contracts import TEST, VAL, DataSpec, GenrecError, RunContext, Task
from genrec.disk import format_bytes
from genrec.masking import masked, masked_words
from genrec.processes import world_of
from genrec.records import FINISHED, PRUNED
from genrec.remote.addresses import is_remote
from genrec.results import Stages, write_costs, write_numbers, write_page
from genrec.run_folder import (
    FEATURES_FILE,
    RunFolder,
    choices,
    config_key,
    ended_job,
    git_state,
    job_of_sweep,
    remove_if_empty,
    resume_folder,
    unused_folder,
    words_given,
)
from genrec.semantic_ids import SemanticIds
from genrec.trainers.world import ALONE, World, leave, tell_lightning

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.interruption import Interruption
    from genrec.loggers.published import RunName
    from genrec.stages import Tokenized
    from genrec.trainers.hardware import Hardware

log = logging.getLogger("genrec.run")

IDS_FILE = "semantic_ids.npz"
_MANY_LEVELS = 6  # more are told as a range


@dataclass
class Outcome:
    """What a run produced: the run folder, the flat final metrics and the history per epoch."""

    folder: Path
    final: dict[str, float]
    history: dict[str, list[float]]
    monitor: str | None = None
    state: str = FINISHED

    @property
    def monitored(self) -> float | None:
        return self.final.get(self.monitor) if self.monitor else None


@dataclass
class Prepared:
    """Data and everything computed from it before a model is built."""

    dataset: Dataset
    spec: DataSpec
    tokenized: Tokenized | None = None
    stages: Stages = field(default_factory=Stages)


@dataclass
class LoadedRun:
    """A finished run brought back to life; the model is in evaluation mode."""

    config: DictConfig
    dataset: Dataset
    spec: DataSpec
    model: Any


def execute(
    config: DictConfig,
    *,
    watch: Callable[[int, float], bool] | None = None,
    interruption: Interruption | None = None,
) -> Outcome:
    """Executes a run and leaves its folder complete: files appear by atomic rename, ``run.json`` says how it ended.

    ``watch`` is told the monitored metric after every epoch and may end the run (``RunContext.watch``); signals that
    ``interruption`` hears end it with a checkpoint.
    """
    from hydra.utils import get_class

    from genrec.config import instantiate

    config = config.copy()
    _make_paths_absolute(config)
    if config.monitor is not None:
        config.trainer.monitor = config.monitor  # the root key is the short name of the trainer's
    check_or_raise(config)
    if config.filter_seen is None:
        config.filter_seen = getattr(get_class(config.model._target_), "masks_seen", False)
    hardware: Hardware = instantiate(config.hardware, _convert_="all")
    world = hardware.join()
    if world.size > 1 and job_of_sweep():
        raise GenrecError(
            f"{hardware.launched} has started this sweep {world.size} times over. Start the sweep once, with "
            "hardware=ddp, and each of its runs starts its own processes."
        )
    if not world.leads:
        outcome = follow(world, interruption)
        if outcome.folder != Path(config.output_dir):  # which Hydra has made for this process alone
            remove_if_empty(Path(config.output_dir))
        return outcome
    key = config_key(config)
    ended = ended_job(config, key)
    if ended is not None:
        log.info("%s has ended already (%s), and its result stands", ended.folder, ended.state)
        return Outcome(ended.folder, ended.final, {}, ended.monitor, ended.state)
    resumed = resume_folder(config, key)
    if resumed is not None:
        remove_if_empty(Path(config.output_dir))
        config.output_dir = str(resumed)
    else:
        config.output_dir = str(unused_folder(config))
    folder = RunFolder(Path(config.output_dir), key, config)
    with folder.held(resumed=resumed is not None):
        folder.write_config(config)
        try:
            with world_of(hardware, world, folder.path, fail=folder.fail) as world:
                about = {"resume": resumed is not None, "watch": watch, "interruption": interruption}
                return _execute(config, folder, hardware, world, **about)
        except BaseException as error:
            folder.fail(error)
            write_page(folder.path)
            raise


def follow(world: World, interruption: Interruption | None = None) -> Outcome:
    """What a process that does not lead does of a run: its share of training, evaluation and baselines. It finds the
    same metrics as the leader, and writes nothing."""
    from genrec.config import instantiate

    told, resume = world.told()
    config: Any = OmegaConf.create(told)
    logging.getLogger("genrec").setLevel(logging.ERROR)  # the leader tells what is to be told
    hardware: Hardware = instantiate(config.hardware, _convert_="all")
    hardware.use_device_of(world)
    try:
        context, trainer = _policy(config, hardware, Path(config.output_dir), resume=resume)
        context.progress, context.interruption = False, interruption
        _meet(hardware, world)
        prepared = prepare(config, context)
        model = _built(config, prepared)
        context.callbacks = _instantiate_all(config.callbacks, "callback")
        data = _data(prepared, model)
        trainer.item_vectors = prepared.spec.item_vectors
        result = trainer.fit(model, data, context)
        if result.pruned:
            final = trainer.chosen_metrics
        else:
            final = _measured(config, trainer, model, data, prepared, context)[0]
            _coded(trainer, model, data)
        return Outcome(
            context.output_dir, final, result.history, trainer.monitor, PRUNED if result.pruned else FINISHED
        )
    finally:
        leave()


def _make_paths_absolute(config: DictConfig) -> None:
    """Files that were named relative to where the run was started, so that the run can be read from anywhere."""
    for node in (config.data, config.data.get("source") or {}, config.encoder, config.tokenizer):
        for name in ("path", "items_path", "users_path"):
            if name in node and not OmegaConf.is_interpolation(node, name) and node[name] is not None:
                node[name] = _absolute(node[name])


def _absolute(path: Any) -> Any:
    if not isinstance(path, str):
        return [_absolute(item) for item in path]
    if is_remote(path):
        return path
    expanded = Path(path).expanduser()
    return str(expanded.absolute() if expanded.exists() else expanded)


def _policy(config: DictConfig, hardware: Hardware, folder: Path, *, resume: bool) -> tuple[RunContext, Any]:
    """The surroundings of a run, without what watches it, and its trainer."""
    from genrec.config import instantiate

    _seed(config.seed)
    context = RunContext(
        output_dir=folder,
        seed=config.seed,
        optimizer=instantiate(config.optimizer, _convert_="all"),
        scheduler=_schedule(config),
        hardware=hardware,
        resume=resume,
        progress=config.progress,
    )
    return context, instantiate(config.trainer, _convert_="all")


def _built(config: DictConfig, prepared: Prepared) -> Any:
    """The model; its weights do not depend on whether a stage was trained or came from the cache."""
    from genrec.config import instantiate

    _seed(config.seed)
    return instantiate(config.model, _partial_=True, _convert_="all")(prepared.spec)


def _execute(
    config: DictConfig,
    run_folder: RunFolder,
    hardware: Hardware,
    world: World,
    *,
    resume: bool,
    watch: Callable[[int, float], bool] | None,
    interruption: Interruption | None,
) -> Outcome:
    from genrec.rehearsal import rehearse
    from genrec.tables import log_table
    from genrec.trainers.tracking import PublishedRun, close_loggers, guard, item_map, log_environment, publish

    folder = run_folder.path
    stages = Stages()
    world.told((_plain(config), resume))
    context, trainer = _policy(config, hardware, folder, resume=resume)
    context.interruption = interruption
    run_folder.describe(**_description(config, trainer))
    rehearse(config, trainer, context.scheduler, context)
    _meet(hardware, world)
    prepared = prepare(config, context, stages)
    run_folder.describe(data=prepared.dataset.name)
    if prepared.tokenized is not None:
        prepared.tokenized.semantic_ids.save(folder / IDS_FILE)
        write_json(folder / "tokenizer_report.json", prepared.tokenized.report)
        if prepared.tokenized.codec is not None:
            with atomic_path(folder / prepared.tokenized.codec.name) as unfinished:
                shutil.copyfile(prepared.tokenized.codec, unfinished)
    fitted = getattr(prepared.dataset, "fitted", None)
    if fitted is not None:
        fitted.save(folder / FEATURES_FILE)
    environment = describe_environment(config, prepared, hardware)
    write_json(folder / "environment.json", environment)

    with stages.measured("model"):
        model = _built(config, prepared)
    for line in size_lines(model):
        log.info("model: %s", line)
    context.loggers = guard(_instantiate_all(config.logger, "logger"))
    context.callbacks = _instantiate_all(config.callbacks, "callback")
    context.watch = watch
    plain = masked(_plain(config))
    log_environment(context.loggers, plain, environment, _run_name(folder, resume))

    data = _data(prepared, model)
    trainer.item_vectors = prepared.spec.item_vectors
    try:
        with stages.measured("fit"):
            result = trainer.fit(model, data, context)
        state = PRUNED if result.pruned else FINISHED
        if result.pruned:
            final = trainer.chosen_metrics
        else:
            final = _judge(config, folder, trainer, model, data, prepared, context)
        write_numbers(folder, final, result.history, stages, model)
        told = {} if result.diverged is None else {"diverged": result.diverged}
        run_folder.end(state, best_epoch=result.best_epoch, **told)
        with stages.measured("report"):
            page = write_page(folder)
        write_costs(folder, stages, model)
        placed = partial(item_map, model, prepared.dataset, prepared.spec)
        items = (lambda: None) if result.pruned else placed
        publish(context.loggers, PublishedRun(folder, final, plain, environment, items))
    except BaseException:
        close_loggers(context.loggers, success=False)
        raise
    close_loggers(context.loggers)
    if not result.pruned:
        names = {"name": _name(config.model), "data": prepared.dataset.name}
        log_table(final, **names, folder=folder, seconds=stages.timing, page=page)
    return Outcome(folder, final, result.history, trainer.monitor, state)


def _judge(
    config: DictConfig, folder: Path, trainer: Any, model: Any, data: Any, prepared: Prepared, context: RunContext
) -> dict[str, float]:
    """The metrics of a trained model on the test part, beside its baselines and the best that can be reached; what
    the test saw of each user or row is written."""
    from genrec.trainers.evidence import write_evidence

    final, evidence, seen = _measured(config, trainer, model, data, prepared, context)
    ids = _coded(trainer, model, data)
    if ids is not None:
        ids.save(folder / IDS_FILE)
        log.info("semantic IDs of all items: %s (use them with tokenizer=file tokenizer.path=...)", folder / IDS_FILE)
    if evidence is not None:
        with prepared.stages.measured("report"):
            write_evidence(folder, evidence, seen, prepared.dataset)
    undefined = [name for name, value in final.items() if not math.isfinite(value)]
    for name in undefined:
        log.warning("%s is %s and is left out of metrics.json", name, final.pop(name))
    return final


def _coded(trainer: Any, model: Any, data: Any) -> SemanticIds | None:
    """The semantic IDs of all items by a model that makes such; several processes share the work."""
    return (
        trainer.semantic_ids(model, data) if model.task is Task.TOKENIZER and hasattr(trainer, "semantic_ids") else None
    )


def _measured(
    config: DictConfig, trainer: Any, model: Any, data: Any, prepared: Prepared, context: RunContext
) -> tuple[dict[str, float], Any, dict[str, Any]]:
    """The metrics of ``_judge``; what the test has seen with the model, and with each baseline."""
    from genrec.trainers.base import view_of
    from genrec.trainers.evidence import evidence_of

    evidence = trainer.collect = evidence_of(model, view_of(data, model), trainer.all_k_values, config.seed)
    try:
        with prepared.stages.measured("test"):
            final = trainer.test(model, data, context)
    finally:
        trainer.collect = None
    final.update({f"tokenizer/{name}": value for name, value in _report(prepared).items()})
    seen: dict[str, Any] = {}
    with prepared.stages.measured("baselines"):
        world, users = _world_of(context), trainer.max_test_users
        final.update(evaluate_baselines(config, prepared, trainer.all_k_values, seen, world, users))
    final.update({f"ceiling/{name}": value for name, value in _ceiling(prepared, model).items()})
    return final, evidence, seen


def _description(config: DictConfig, trainer: Any) -> dict[str, Any]:
    """What ``run.json`` tells of a run before anything is computed."""
    from genrec.directions import metric_mode

    chosen = choices()
    return {
        "model": chosen.get("model", _name(config.model)),
        "data": chosen.get("data", ""),
        "monitor": trainer.monitor,
        "direction": getattr(trainer, "direction", metric_mode(trainer.monitor)),
        "choices": chosen,
    }


def _run_name(folder: Path, resumed: bool) -> RunName:
    """How loggers call the run: by its folder or, in a sweep, by what only it was told."""
    from hydra.core.hydra_config import HydraConfig

    from genrec.trainers.tracking import name_run

    if not job_of_sweep():
        return name_run(folder, resumed=resumed)
    hydra = HydraConfig.get()
    words = masked_words(words_given())
    command = masked_words(sys.argv)
    return name_run(folder, sweep=Path(hydra.sweep.dir), overrides=words, command=command, resumed=resumed)


def prepare(config: DictConfig, context: RunContext, stages: Stages | None = None) -> Prepared:
    """Loads the data and runs the upstream stages that the model, or a baseline, needs; ``stages`` measures them.

    Several processes that have met do so together: the leader reads the data first, and all share the stages.
    """
    from hydra.utils import get_class

    from genrec.config import instantiate

    stages = stages or Stages()
    world = _world_of(context)
    with stages.measured("data"), world.leader_first():
        dataset: Dataset = instantiate(config.data, _convert_="all")
        for line in dataset.describe():
            log.info("data: %s", line)
    model_class = get_class(config.model._target_)
    tokens = model_class.view == "tokens"
    required = tokens or model_class.view == "items" or _needs_vectors(config.model)
    welcome = dataset.has_text and any(_needs_vectors(node) for node in _baselines(config).values())
    vectors = _encode(config, dataset, stages, world) if required or welcome else None
    tokenized = _tokenize(config, dataset, vectors, context, stages) if tokens and vectors is not None else None
    spec = replace(dataset.spec, semantic_ids=tokenized.semantic_ids if tokenized else None, item_vectors=vectors)
    return Prepared(dataset, spec, tokenized, stages)


def _meet(hardware: Hardware, world: World) -> None:
    """Brings the processes in touch; from now on each keeps to its part of the processor."""
    hardware.world = world.met(hardware.device)
    tell_lightning(world)
    if world.size > 1:
        hardware.prepare()


def _world_of(context: RunContext) -> World:
    return context.hardware.world if context.hardware is not None else ALONE


def _encode(config: DictConfig, dataset: Dataset, stages: Stages, world: World = ALONE) -> np.ndarray:
    from genrec.config import instantiate
    from genrec.stages import item_vectors

    node = config.encoder
    with stages.measured("encoder"):
        vectors, cached = item_vectors(
            _plain(node), lambda: instantiate(node, _convert_="all"), dataset, Cache(Path(config.cache_dir)), world
        )
    origin = _from(cached, stages.seconds["encoder"])
    log.info("encoder: %s gave %d x %d vectors%s", _name(node), *vectors.shape, origin)
    return vectors


def _tokenize(
    config: DictConfig, dataset: Dataset, vectors: np.ndarray, context: RunContext, stages: Stages
) -> Tokenized:
    from genrec.config import instantiate
    from genrec.stages import semantic_ids

    node = config.tokenizer
    with stages.measured("tokenizer"):
        tokenized = semantic_ids(
            _plain(node),
            lambda: instantiate(node, _convert_="all"),
            vectors,
            dataset,
            context,
            Cache(Path(config.cache_dir)),
        )
    origin = _from(tokenized.cached, stages.seconds["tokenizer"])
    log.info("tokenizer: %s %s%s", _name(node), _id_line(tokenized), origin)
    for line in quality_lines(tokenized.report):
        log.info("tokenizer: %s", line)
    return tokenized


def evaluate_baselines(
    config: DictConfig,
    prepared: Prepared,
    k_values: Sequence[int],
    evidence: dict[str, Any] | None = None,
    world: World | None = None,
    max_users: int | None = None,
) -> dict[str, float]:
    """Metrics of every baseline for the same task under the run's own protocol, named like
    ``baseline/item_knn/test/recall@10``, of a sample of ``max_users`` where given. ``evidence`` is filled with what the
    test saw, by the baseline's name."""
    from hydra.utils import get_class

    from genrec.config import instantiate
    from genrec.trainers.base import view_of
    from genrec.trainers.evidence import evidence_of

    task = get_class(config.model._target_).task
    final: dict[str, float] = {}
    for name, node in _baselines(config).items():
        if node._target_ == config.model._target_ or get_class(node._target_).task is not task:
            continue
        if _needs_vectors(node) and not prepared.dataset.has_text:
            log.info("baseline %s left out: %s has no item text", name, prepared.dataset.name)
            continue
        model = instantiate(node, _partial_=True, _convert_="all")(prepared.spec)
        for part in (VAL, TEST):
            collect = None
            if part == TEST and evidence is not None:
                view = view_of(prepared.dataset, model)
                collect = evidence[name] = evidence_of(model, view, k_values, config.seed)
            metrics = _evaluate_baseline(model, config, prepared, part, k_values, collect, world or ALONE, max_users)
            final.update({f"baseline/{name}/{key}": value for key, value in metrics.items()})
    return final


def _evaluate_baseline(
    model: Any,
    config: DictConfig,
    prepared: Prepared,
    part: str,
    k_values: Sequence[int],
    collect: Any,
    world: World,
    max_users: int | None,
) -> dict[str, float]:
    from genrec.trainers.evaluation import beyond_accuracy, evaluate_retrieval
    from genrec.trainers.scoring import evaluate_rows

    if model.task is Task.RANKING:
        view = prepared.dataset.view(model.view)
        return evaluate_rows(model, view, part, seed=config.seed, progress=False, collect=collect, world=world)
    sequences = prepared.dataset.sequences
    return evaluate_retrieval(
        model,
        sequences,
        part,
        k_values=k_values,
        filter_seen=config.filter_seen,
        batch_size=512,
        max_users=max_users,
        seed=config.seed,
        progress=False,
        beyond=beyond_accuracy(sequences, k_values, prepared.spec.item_vectors) if part == TEST else None,
        collect=collect,
        world=world,
    )


def load_run(folder: Path, checkpoint: str = "best") -> LoadedRun:
    """Rebuilds data and model of a finished run; ``checkpoint`` is "best" or "final"."""
    from hydra.utils import get_class

    from genrec.config import instantiate, recorded_config
    from genrec.trainers.checkpoints import load_weights

    folder = Path(folder)
    config = recorded_config(folder)
    dataset: Dataset = instantiate(config.data, _convert_="all")
    if get_class(config.model._target_).view == "tokens":
        ids = SemanticIds.load(folder / IDS_FILE)
        vectors = _encode(config, dataset, Stages()) if _needs_vectors(config.model) else None
        spec = DataSpec(dataset.num_users, dataset.num_items, ids, vectors, dataset.sequences.train)
    else:
        context = RunContext(output_dir=folder, seed=config.seed, progress=False)
        alone = config.copy()
        alone.baselines = {}
        spec = prepare(alone, context).spec
    recorded = read_json(folder / "environment.json", dict)
    found = {"data": dataset.fingerprint, "graph": dataset.graph.fingerprint if _sees_graph(config) else None}
    for name, value in found.items():
        then = recorded.get(f"{name}_fingerprint")
        if value is not None and then is not None and then != value:
            raise GenrecError(
                f"The {name} has changed since {folder} was trained (fingerprint {value}, then {then}). "
                "Restore the data or train again."
            )
    model = instantiate(config.model, _partial_=True, _convert_="all")(spec)
    weights = folder / "checkpoints" / f"{checkpoint}_model.pt"
    if any(True for _ in model.parameters()):
        if not weights.exists():
            raise GenrecError(f"{weights} does not exist: the run has not finished. Continue it with resume={folder}.")
        load_weights(weights, model)
    return LoadedRun(config, dataset, spec, model.eval())


def describe_environment(config: DictConfig, prepared: Prepared, hardware: Any) -> dict[str, Any]:
    """What one needs to know to rerun a result: versions, code state, fingerprints, seed and machine."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {"genrec": genrec.__version__, "python": platform.python_version()}
    for package in ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "polars", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "command": masked_words(sys.argv),
        "versions": versions,
        "git": git_state(),
        "host": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads() if hardware.num_threads is None else hardware.num_threads,
            "device": str(hardware.device),
            "precision": hardware.precision,
        },
        "seed": config.seed,
        "config_key": config_key(config),
        "data_fingerprint": prepared.dataset.fingerprint,
        "graph_fingerprint": prepared.dataset.graph.fingerprint if _sees_graph(config) else None,
        "semantic_ids_fingerprint": prepared.tokenized.semantic_ids.fingerprint if prepared.tokenized else None,
    }


def _data(prepared: Prepared, model: Any) -> Any:
    """A data set makes the view itself, and knows titles and times besides; item vectors are not its own."""
    if model.view == "items":
        return prepared.dataset.view("items", vectors=prepared.spec.item_vectors)
    return prepared.dataset


def _sees_graph(config: DictConfig) -> bool:
    from hydra.utils import get_class

    return get_class(config.model._target_).view == "graph"


def _needs_vectors(node: Any) -> bool:
    """Whether a model reads item vectors: always, or where the option that its class names is set."""
    from hydra.utils import get_class

    model_class = get_class(node._target_)
    option = getattr(model_class, "item_vectors_option", None)
    return getattr(model_class, "needs_item_vectors", False) or bool(option and node.get(option))


def _plain(node: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return plain


def _baselines(config: DictConfig) -> dict[str, Any]:
    from hydra.utils import get_class

    nodes = {name: node for name, node in (config.baselines or {}).items() if node is not None}
    for name, node in nodes.items():
        if not hasattr(get_class(node._target_), "task"):
            raise GenrecError(f"baselines.{name}._target_={node._target_}: a baseline is a model. Give one, or null.")
    return nodes


def _report(prepared: Prepared) -> dict[str, float]:
    return prepared.tokenized.report if prepared.tokenized else {}


def _ceiling(prepared: Prepared, model: Any) -> dict[str, float]:
    return {} if model.task is Task.TOKENIZER else prepared.dataset.ceiling


def _id_line(tokenized: Tokenized) -> str:
    ids = tokenized.semantic_ids
    sizes = ids.codebook_sizes
    if len(sizes) > _MANY_LEVELS:
        spread = str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
        return f"gave {ids.num_items:,} semantic IDs of {len(sizes)} digits with {spread} codes each"
    return f"gave {ids.num_items:,} semantic IDs over {' x '.join(str(size) for size in sizes)} codes"


def size_lines(model: Any) -> list[str]:
    """How large a model of rows is, and what of it are vectors of fields."""
    fields = getattr(model, "fields", None)
    if fields is None or not hasattr(fields, "memory"):
        return []
    sizes = fields.memory()
    largest = sorted(sizes.items(), key=lambda entry: -entry[1])[:3]
    shown = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    count = sum(parameter.numel() for parameter in model.parameters())
    whole = f"{format_bytes(sum(sizes.values()))} in {len(sizes)} vocabularies"
    return [f"{count:,} parameters; vectors of fields {whole}" + (f", the largest {shown}" if shown else "")]


def quality_lines(report: dict[str, float]) -> list[str]:
    """A tokenizer's quality report in words: collisions, use of the codebooks, what the codes leave unexplained."""
    lines = []
    if "unique_share" in report:
        lines.append(
            f"{report['unique_share']:.1%} of the items unique before the collision policy, "
            f"largest group of colliding items {report['largest_collision_group']:.0f}"
        )
    levels = [name.rsplit("/", 1)[1] for name in report if name.startswith("perplexity/")]
    if levels:
        shares = [report[f"usage_rate/{level}"] for level in levels]
        perplexities = [report[f"perplexity/{level}"] for level in levels]
        if len(levels) > _MANY_LEVELS:
            low, high = min(perplexities), max(perplexities)
            usage = f"at least {min(shares):.0%} used, perplexity {low:.0f} to {high:.0f}"
        else:
            each = zip(shares, perplexities, strict=True)
            usage = ", ".join(f"{share:.0%} used, perplexity {perplexity:.0f}" for share, perplexity in each)
        lines.append(f"codes per level: {usage}")
    if "reconstruction_error" in report:
        lines.append(f"{report['reconstruction_error']:.1%} of the variance is not in the codes")
    return lines


def _from(cached: bool, seconds: float) -> str:
    return " (from the cache)" if cached else f" in {seconds:.1f} s"


def _name(node: DictConfig) -> str:
    return str(node._target_).rsplit(".", 2)[-2]


def _schedule(config: DictConfig) -> Any:
    from genrec.config import instantiate

    schedule = instantiate(config.scheduler, _convert_="all")
    if schedule is not None and not hasattr(schedule, "follows_metric"):
        given = config.scheduler._target_
        raise GenrecError(f"scheduler._target_={given} is no schedule. Choose one, scheduler=cosine, or null.")
    return schedule


def _instantiate_all(nodes: DictConfig | None, kind: str) -> list[Any]:
    from pytorch_lightning import Callback

    from genrec.config import instantiate

    built: list[Any] = []
    for name, node in (nodes or {}).items():
        try:
            built.append(instantiate(node, _convert_="all"))
        except Exception as error:
            if kind != "logger":
                raise GenrecError(f"{kind} {name!r} could not be built: {error}") from error
            log.warning("logger %s is off for this run: %s", name, error)  # tracking never stops an experiment
            continue
        if kind == "callback" and not isinstance(built[-1], Callback):
            given = type(built[-1]).__name__
            raise GenrecError(f"callbacks.{name}: {given} is no callback of Lightning. Give one, or null.")
    return built


def _seed(seed: int) -> None:
    from pytorch_lightning import seed_everything

    seed_everything(seed, workers=True, verbose=False)
