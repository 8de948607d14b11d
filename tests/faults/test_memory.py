"""Memory that runs out: a sentence with a batch size that fits, because it was tried, and that takes the same steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from genrec.memory import out_of_memory, what_allocator_said
from tests.faults.faulty_runs import TINY, Commands, sentence, state_of

# While it trains, the data of the process may grow by so many bytes. Not longer: other libraries bear it badly.
SHORT = """
from genrec.trainers.base import BaseTrainer
train = BaseTrainer._train
def limited(self, *args, **kwargs):
    size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (size + {more}, resource.RLIM_INFINITY))
    try:
        return train(self, *args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
BaseTrainer._train = limited
"""
# As a GPU says it, where a batch has more than so many rows.
CUDA = """
import torch
from genrec.trainers.base import BaseTrainer
step = BaseTrainer.train_step
def small(self, model, batch):
    if len(batch.users) > {rows}:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity ...")
    return step(self, model, batch)
BaseTrainer.train_step = small
"""
WIDE = [word for word in TINY if not word.startswith(("data.source", "trainer.batch_size", "model.embedding_dim"))]
WIDE += [
    "data.source.num_users=3000",
    "data.source.num_items=400",
    "model.embedding_dim=32",
    "model.feedforward_dim=2048",
    "trainer.max_epochs=1",
    "trainer.eval_batch_size=16",
]


def advised(output: str) -> tuple[int, int]:
    """The batch size of the sentence, and how many make a step."""
    found = re.search(r"trainer\.batch_size=(\d+) trainer\.accumulate_grad_batches=(\d+)", sentence(output))
    assert found, output
    return int(found[1]), int(found[2])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads how large the process is from /proc")
def test_too_little_memory_on_a_processor(commands: Commands) -> None:
    planted = SHORT.format(more=150 << 20)
    code, output = commands.run(*WIDE, "trainer.batch_size=32768", planted=planted)
    assert code == 1, output
    size, parts = advised(output)
    assert "Memory ran out in training" in output and "can't allocate memory" in output
    assert size * parts == 32768 and 1 < parts < 32768
    assert state_of(commands.folder()) == "failed"
    words = [f"trainer.batch_size={size}", f"trainer.accumulate_grad_batches={parts}", "trainer.max_steps=1"]
    code, output = commands.run(*WIDE, *words, planted=planted)
    assert code == 0, output


def test_too_little_memory_on_a_gpu(commands: Commands) -> None:
    code, output = commands.run(*TINY, planted=CUDA.format(rows=3))
    assert code == 1
    size, parts = advised(output)
    assert size * parts >= 64 and parts > 1 and "CUDA out of memory" in output
    words = [f"trainer.batch_size={size}", f"trainer.accumulate_grad_batches={parts}"]
    assert commands.run(*TINY, *words, planted=CUDA.format(rows=3))[0] == 0


TOKENIZED = [word for word in TINY if not word.startswith(("model", "trainer=", "data.source.num_items"))]
TOKENIZED += [
    *("model=tiger", "model.embedding_dim=16", "model.num_layers=1", "model.num_decoder_layers=1", "model.num_heads=2"),
    *(
        "model.head_dim=8",
        "model.feedforward_dim=32",
        "trainer=tiger",
        "trainer.max_steps=1",
        "data.source.num_items=90",
    ),
    *("encoder.dim=16", "tokenizer=rqvae", "tokenizer.codebook_size=8", "tokenizer.trainer.max_epochs=2"),
]
# While the tokenizer trains; that of the run above would find its batches small enough.
CUDA_OF_ITEMS = """
import torch
from genrec.trainers.rqvae import RQVAETrainer
step = RQVAETrainer.train_step
def small(self, model, batch):
    if len(batch.vectors) > {rows}:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity ...")
    return step(self, model, batch)
RQVAETrainer.train_step = small
"""


def test_too_little_memory_for_a_tokenizer(commands: Commands) -> None:
    """Its settings have names of their own, and these are told."""
    planted = CUDA_OF_ITEMS.format(rows=40)
    code, output = commands.run(*TOKENIZED, planted=planted)
    assert code == 1
    found = re.search(
        r"start again with (tokenizer\.trainer\.batch_size=(\d+)) (tokenizer\.trainer\.accumulate_grad_batches=(\d+)),",
        sentence(output),
    )
    assert found and int(found[2]) * int(found[4]) == 1024 and int(found[2]) <= 40, output
    assert "with tokenizer.trainer.batch_size=1024" in output and " trainer." not in sentence(output)
    code, output = commands.run(*TOKENIZED, found[1], found[3], planted=planted)
    assert code == 0, output


def test_not_even_one_item_fits(commands: Commands) -> None:
    code, output = commands.run(*TOKENIZED, planted=CUDA_OF_ITEMS.format(rows=0))
    assert code == 1
    assert "tokenizer.model.hidden_dims" in sentence(output) and "No smaller batch was found" in sentence(output)


def test_not_even_one_target_fits(commands: Commands) -> None:
    code, output = commands.run(*TINY, planted=CUDA.format(rows=0))
    assert code == 1
    assert "No smaller batch was found to fit" in sentence(output)


@pytest.mark.parametrize("words", [[], ["trainer.max_steps=5"]], ids=["whole epoch", "part of an epoch"])
def test_too_little_memory_in_evaluation(words: list[str], commands: Commands) -> None:
    planted = "from genrec.models.sasrec import SASRec\nrecommend = SASRec.recommend\n"
    planted += "def small(self, batch, k):\n    if len(batch.users) > 20:\n        raise MemoryError('no room')\n"
    planted += "    return recommend(self, batch, k)\nSASRec.recommend = small\n"
    code, output = commands.run(*TINY, *words, planted=planted)
    assert code == 1
    found = re.search(r"repeat the command with trainer\.eval_batch_size=(\d+)", sentence(output))
    assert found and int(found[1]) <= 20, output
    assert commands.run(*TINY, *words, found[0].split()[-1], planted=planted)[0] == 0


@pytest.mark.parametrize("place", ["genrec.pipeline.prepare", "genrec.pipeline.evaluate_baselines"])
def test_too_little_memory_elsewhere(place: str, commands: Commands) -> None:
    planted = "import genrec.pipeline\ndef short(*args):\n    raise MemoryError('Unable to allocate 9 GiB')\n"
    code, output = commands.run(*TINY, planted=f"{planted}{place} = short\n")
    assert code == 1
    assert "Memory ran out (Unable to allocate 9 GiB)" in sentence(output) and "doctor" in output


def test_words_of_allocators_are_known() -> None:
    said = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
    assert out_of_memory(RuntimeError(said)) and what_allocator_said(RuntimeError(said)).startswith("can't allocate")
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("x"))
    assert not out_of_memory(RuntimeError("shapes differ")) and not out_of_memory(ValueError("out of memory"))
