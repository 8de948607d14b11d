"""kill -9 at every stage of a run: what was finished stays, nothing half written reads as whole, and ``resume=auto``
ends with the bits of a run that nobody has killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec.artifacts import entry_damage, read_json
from genrec.trainers.checkpoints import read_checkpoint
from tests.faults.faulty_runs import TINY, Commands, same_result, state_of, unfinished_files

TIGER = [
    "model=tiger",
    "model.embedding_dim=16",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_heads=1",
    "model.head_dim=16",
    "model.feedforward_dim=32",
    "trainer=advanced",
    "trainer.max_epochs=2",
    "trainer.batch_size=64",
    "trainer.checkpoint_every_steps=3",
    "tokenizer.codebook_size=16",
    "data.source.num_users=24",
    "data.source.num_items=50",
    "hardware=cpu",
    "hardware.num_threads=1",
    "logger=none",
    "~baselines.text_knn",
    "progress=false",
]
STAGES = {
    "encoding": ("genrec.data.encoders.tfidf:TfidfEncoder.encode", 1, None),
    "half of the vectors": ("numpy:save", 1, 0),
    "tokenizing": ("genrec.tokenizers.rqkmeans:RQKMeans.fit", 1, None),
    "half of the semantic IDs": ("numpy:savez_compressed", 1, 0),
    "training": ("genrec.trainers.base:BaseTrainer.train_step", 6, None),
    "half of the first checkpoint": ("torch:save", 1, 1),
    "half of a later checkpoint": ("torch:save", 5, 1),
    "validation": ("genrec.trainers.base:evaluate_retrieval", 2, None),
    "between the last weights and the test": ("genrec.trainers.advanced:AdvancedTrainer.test", 1, None),
    "baselines": ("genrec.pipeline:evaluate_baselines", 1, None),
    "metrics": ("genrec.pipeline:write_numbers", 1, None),
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_continued_ends_with_the_same_bits(
    stage: str, commands: Commands, whole: Callable[..., Path]
) -> None:
    place, nth, half = STAGES[stage]
    command = commands.held(place, *TIGER, nth=nth, half=half)
    command.kill(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    folder = commands.folder()
    assert read_json(folder / "run.json")["state"] == "running" and state_of(folder) == "killed"
    assert bool(unfinished_files(commands.root)) == (half is not None)
    nothing_torn_reads_as_whole(commands.root)
    assert not (folder / "metrics.json").exists()

    code, output = commands.run(*TIGER, "resume=auto")
    assert code == 0, output
    assert f"continuing {folder}" in output and commands.folder() == folder and state_of(folder) == "finished"
    assert ("Resuming" in output) == (
        (folder / "checkpoints" / "last.ckpt").exists() and stage not in BEFORE_A_CHECKPOINT
    )
    assert unfinished_files(commands.root / "runs") + unfinished_files(commands.root / "cache") == []
    same_result(folder, whole(*TIGER))


BEFORE_A_CHECKPOINT = (
    "encoding",
    "half of the vectors",
    "tokenizing",
    "half of the semantic IDs",
    "half of the first checkpoint",
)


def test_killed_while_the_page_is_written_has_finished(commands: Commands) -> None:
    """The figures are there by then; only the page is not, and a command makes it."""
    command = commands.held("genrec.pipeline:write_page", *TINY)
    command.kill(signal.SIGKILL)
    command.wait()
    folder = commands.folder()
    assert state_of(folder) == "finished" and "final" in read_json(folder / "metrics.json")
    assert not (folder / "report.html").exists()
    code, output = commands.run(str(folder), module="genrec.report.command")
    assert code == 0 and (folder / "report.html").exists(), output


def test_killed_runs_are_listed_as_killed(commands: Commands) -> None:
    command = commands.held("genrec.trainers.base:BaseTrainer.train_step", *TINY)
    listing = ("ls", f"runs_dir={commands.root / 'runs'}")
    assert "running" in commands.run(*listing, module="genrec.report.command")[1]
    command.kill(signal.SIGKILL)
    command.wait()
    code, output = commands.run(*listing, module="genrec.report.command")
    assert code == 0 and "killed" in output and "running" not in output


def nothing_torn_reads_as_whole(root: Path) -> None:
    """Every file by its own name is one, and every mark of the cache is true."""
    for path in [*root.rglob("checkpoints/*.pt"), *root.rglob("checkpoints/*.ckpt")]:
        if not path.name.startswith("."):
            read_checkpoint(path)
    for path in root.rglob("*.json"):
        read_json(path)
    for mark in root.rglob("cache/*/*/done"):
        assert entry_damage(mark.parent) == ""
