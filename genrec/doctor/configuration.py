"""A config: does it compose, do its parts fit each other, is its data there, and how large is what it trains?"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.contracts import GenrecError
from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning
from genrec.remote.addresses import is_remote, shown

LOADED = 200e6  # bytes of data that are read to count users and items; more takes too long
EXTRAS = {
    "genrec.data.encoders.sentence_transformer.SentenceTransformerEncoder": "text",
    "genrec.loggers.mlflow.MLflow": "mlflow",
}
_SMALLER = "Make the model smaller (model.embedding_dim=...), or its optimizer lighter: optimizer=sgd"
_HELP = "See what there is: python -m genrec.run --help"


@dataclass
class Subject:
    """The words of a config, and what has been made of them so far."""

    words: tuple[str, ...]
    config_dir: str | None = None
    config: Any = None
    dataset: Any = None
    fits: bool = False

    @property
    def composed(self) -> Any:
        assert self.config is not None
        return self.config


def check_composition(subject: Subject) -> Iterator[Finding]:
    """The words compose a config, and every key is one that its class takes; ``subject.config`` is set then."""
    from genrec.config.command_line import Composer, command_faults

    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as a run does, for the user's own modules
    try:
        with Composer(subject.config_dir) as composer:
            faults = command_faults(composer, subject.words)
            for fault in faults:
                head = fault.key if fault.given is None else f"{fault.key}={fault.given}"
                near = f"Did you mean {fault.nearest}? " if fault.nearest else ""
                yield problem(fault.key, f"{head}: {fault.problem}", (near + fault.allowed).strip() or _HELP)
            if faults:
                return
            config = composer.compose(subject.words)
    except GenrecError as error:
        yield refused("config", error)
        return
    config.output_dir = str(Path(config.runs_dir) / "composed")
    if config.monitor is not None:
        config.trainer.monitor = config.monitor
    subject.config = config
    yield ok("config", f"{_name(config.model)}, {_name(config.trainer)}, {_name(config.data)}: every key is known")


def check_packages(_: Places, subject: Subject) -> Iterator[Finding]:
    """What the config asks for beyond the core packages is installed."""
    from genrec.doctor.requirements import packages, requirements

    wanted = requirements()
    for extra in sorted(_extras(subject.composed)):
        missing = [package.name for package in packages(wanted.extras.get(extra, ())) if not package.fits]
        if missing:
            yield problem(f"extra {extra}", f"this config needs {', '.join(missing)}", wanted.install(extra))
        else:
            yield ok(f"extra {extra}", "installed, as this config needs it")


def check_hardware(_: Places, subject: Subject) -> Iterator[Finding]:
    """The device is there."""
    from genrec.config import instantiate

    try:
        hardware = instantiate(subject.composed.hardware, _convert_="all")
        device = hardware.device
    except GenrecError as error:
        yield refused("hardware", error)
        return
    yield ok("hardware", f"{device}, {hardware.precision}")


def check_data(_: Places, subject: Subject) -> Iterator[Finding]:
    """The files of the data are there, whole, and can be read as what they are said to be; ``subject.dataset`` is set
    then, unless they are large."""
    source = _plain(subject.composed.data.get("source") or {})
    path = source.get("path")
    if not path:
        yield from _load(subject, "made by genrec")
        return
    if remote := [item for item in ([path] if isinstance(path, str) else path) if is_remote(item)]:
        yield from _remote_findings(remote, source.get("storage_options"))
        return
    found = list(_file_findings(source, path))
    yield from found
    if any(finding.state != "ok" for finding in found):
        return
    files = _files(source, path)
    size = sum(file.stat().st_size for file in files)
    if size > LOADED or any(file.name.startswith("reviews_") for file in files) or not files:
        yield ok("data", "not read here: it is large, or cleaned at the first run")
    else:
        yield from _load(subject, "read")


def check_rehearsal(_: Places, subject: Subject) -> Iterator[Finding]:
    """Model, trainer, schedule and data take each other; ``subject.fits`` says so."""
    from genrec.config import instantiate
    from genrec.rehearsal import rehearse

    config = subject.composed
    try:
        trainer = instantiate(config.trainer, _convert_="all")
        rehearse(config, trainer, instantiate(config.scheduler, _convert_="all"))
        instantiate(config.optimizer, _convert_="all")
    except GenrecError as error:
        yield refused("rehearsal", error)
        return
    subject.fits = True
    yield ok("rehearsal", f"{_name(config.model)} and {_name(config.trainer)} fit each other and the data")


def check_continuation(_: Places, subject: Subject) -> Iterator[Finding]:
    """The folder of ``resume=`` holds a run of this config."""
    from genrec.run_folder import config_key, resume_folder

    config = subject.composed
    if config.resume is None:
        return
    try:
        folder = resume_folder(config, config_key(config))
    except (GenrecError, KeyError) as error:
        yield refused("resume", error)
        return
    yield ok("resume", f"continues {folder}" if folder else "there is nothing to continue, so a new run starts")


def check_size(_: Places, subject: Subject) -> Iterator[Finding]:
    """How many parameters are trained, and whether they, their gradients and the optimizer's state fit in memory."""
    if not subject.fits:
        return
    from genrec.doctor.estimate import estimate, free_memory
    from genrec.report.scales import format_bytes

    try:
        size = estimate(subject.composed, subject.dataset)
    except GenrecError as error:
        yield refused("size", error)
        return
    except (RuntimeError, MemoryError) as error:
        told = one_line(str(error).partition("\n")[0])
        yield problem("memory of training", f"the model cannot be built here: {told}", _SMALLER)
        return
    known = "" if subject.dataset is not None else " without what grows with the data: these were not read"
    yield ok("parameters", f"{size.parameters:,}{known}")
    free = free_memory(subject.composed)
    parts = {"weights": size.weights, "gradients": size.gradients, "optimizer": size.state}
    found = ", ".join(f"{name} {format_bytes(value)}" for name, value in parts.items())
    found += f"; {format_bytes(free)} free, and batches come on top" if free is not None else "; batches come on top"
    if free is not None and size.total > free:
        yield problem("memory of training", found, _SMALLER)
    elif free is not None and size.total > free / 2:
        yield warning("memory of training", found, _SMALLER)
    else:
        yield ok("memory of training", found)


def refused(name: str, error: BaseException) -> Finding:
    """What genrec refuses, its last sentence as what to do."""
    text = one_line(error)
    found, stop, advice = text.rpartition(". ")
    return problem(name, found + stop.strip(), advice) if stop else problem(name, text, _HELP)


def _remote_findings(addresses: Sequence[str], options: Any) -> Iterator[Finding]:
    """What the stores say of remote data, of which nothing is fetched."""
    from genrec.remote.stores import remote_files

    for address in addresses:
        try:
            files = remote_files(address, options)
        except GenrecError as error:
            yield refused("files", error)
            return
        size = sum(file.size or 0 for file in files)
        yield ok("files", f"{shown(address)}: {len(files)} files, {size:,} bytes")
    yield ok("data", "not read here: it is remote, and the first run fetches what it needs of it")


def _file_findings(source: Mapping[str, Any], path: Any) -> Iterator[Finding]:
    """One finding per file that is missing or damaged, else one for all."""
    from genrec.doctor.data import file_fault

    absent = [item for item in _paths(path) if not item.exists()]
    files = _files(source, path)
    if absent or not files:
        where = absent[0] if absent else _paths(path)[0]
        said = f"{where} is not there" if absent else f"{where} holds none of the files of {_class(source)}"
        if source.get("download"):
            yield ok("files", f"{said}; the run fetches them, for which it needs a network")
        elif "download" in source:
            yield problem("files", said, "Let genrec fetch them: data.source.download=true, or data_root=<folder>")
        else:
            yield problem("files", said, "Say where they are: data.path=<file or folder>, or data_root=<folder>")
        return
    faults = {file: fault for file in files if (fault := file_fault(file))}
    for file, fault in faults.items():
        yield problem("files", f"{file} {fault}", f"Delete it and fetch it again: rm {shlex.quote(str(file))}")
    if not faults:
        yield ok("files", ", ".join(map(str, files[:4])) + (" ..." if len(files) > 4 else ""))


def _files(source: Mapping[str, Any], path: Any) -> list[Path]:
    """The files that a source would read."""
    from genrec.doctor.data import SOURCES, NamedData, files_of

    paths = _paths(path)
    if all(item.is_file() for item in paths):
        return paths
    if len(paths) > 1 or not paths[0].is_dir():
        return []
    data = NamedData("data", paths[0], source)
    return files_of(data) if data.kind in SOURCES or data.kind == "FolderSource" else sorted(paths[0].iterdir())


def _paths(path: Any) -> list[Path]:
    return [Path(item).expanduser() for item in ([path] if isinstance(path, str) else path)]


def _load(subject: Subject, how: str) -> Iterator[Finding]:
    from genrec.config import instantiate

    config = subject.composed.copy()
    config.progress = False
    for node, key in ((config.data.get("source"), "download"), (config.data, "memory_map")):
        if node is not None and key in node:
            node[key] = False  # nothing is fetched, nothing written
    try:
        dataset = instantiate(config.data, _convert_="all")
        lines = dataset.describe()
        _ = dataset.spec
    except GenrecError as error:
        yield refused("data", error)
        return
    subject.dataset = dataset
    yield ok("data", f"{how}: {lines[0] if lines else dataset.name}")


def _extras(config: Any) -> set[str]:
    plain = _plain(config)
    found = {EXTRAS[target] for target in _targets(plain) if target in EXTRAS}
    if (plain.get("encoder") or {}).get("precomputed"):
        found.discard("text")  # the vectors lie beside the data, mostly; where they do not, the encoder says so
    if (plain.get("trainer") or {}).get("ann") == "faiss":
        found.add("faiss")
    return found


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for item in node.values():
            yield from _targets(item)
    elif isinstance(node, list):
        for item in node:
            yield from _targets(item)


def _plain(node: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    return plain


def _class(source: Mapping[str, Any]) -> str:
    return str(source.get("_target_", "the source")).rpartition(".")[2]


def _name(node: Any) -> str:
    return str(node.get("_target_", "?")).rpartition(".")[2]
