"""Tokenizers: RQ-VAE epochs, the k-means that initialises its codebooks, and a million vectors to codes in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed import data
from experiments.speed.measure import Contender, Task, Work
from experiments.speed.ours import Training
from experiments.speed.setting import LIGHTNING, Setting, attempt, optional
from genrec.contracts import DataSpec
from genrec.data.views import ItemsView
from genrec.models.rqvae import RQVAE

DIM, BATCH, LEVELS, CODES, LATENT = 768, 1024, 3, 256, 32
HIDDEN = (512, 256, 128)
REFERENCE = "vector-quantize-pytorch"
_EPOCHS = 3  # of a call
_STREAM, _CHUNK = 1_000_000, 16_384


def tasks(setting: Setting) -> Iterator[Task]:
    torch.manual_seed(0)
    vectors = data.item_vectors(dim=DIM)
    yield _epochs(setting, vectors)
    yield _initialisation(setting, vectors)
    yield _stream(setting, vectors)


def _epochs(setting: Setting, vectors: np.ndarray) -> Task:
    contenders = [
        attempt(REFERENCE, lambda: _vq(vectors), quoted="0.52 s"),
        attempt("cornac RQVAE", lambda: _cornac(vectors), quoted="0.46 s"),
        attempt("torch-rechub RQVAE", lambda: _rechub(vectors)),
        *(
            attempt(f"genrec RQVAE, {precision}", lambda p=precision: _ours(setting, vectors, p))
            for precision in setting.precisions
        ),
    ]
    return Task(
        name=f"An epoch of an RQ-VAE on {len(vectors):,} x {DIM} (batches of {BATCH}, {LEVELS} levels of {CODES})",
        unit="s",
        contenders=contenders,
        reference=REFERENCE,
    )


def _model(vectors: np.ndarray) -> RQVAE:
    spec = DataSpec(num_users=1, num_items=len(vectors), item_vectors=vectors)
    return RQVAE(spec, hidden_dims=HIDDEN, latent_dim=LATENT, num_quantizers=LEVELS, num_embeddings=CODES)


def _ours(setting: Setting, vectors: np.ndarray, precision: str) -> Contender:
    model = _model(vectors)
    view = ItemsView(vectors, val_ratio=0.0, test_ratio=0.0)
    training = Training(
        model,
        view,
        setting.folder,
        batch_size=BATCH,
        precision=LIGHTNING[precision],
        compile=setting.compile,
        epochs=True,
    )
    return Contender(
        name=f"genrec RQVAE, {precision}",
        ours=True,
        call=training,
        settings=f"real trainer, defaults of model=rqvae, AdamW, {precision}",
        target="1.5x" if precision == setting.precisions[0] else "",
        floor=setting.machine.floor(training.flops_per_unit(), precision=precision),
    )


class _Autoencoder(nn.Module):
    """vector-quantize-pytorch brings the quantiser; the MLPs around it are those of the paper."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        widths = [DIM, *HIDDEN, LATENT]
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        quantized, _, commitment = self.quantizer(self.encoder(x))
        return nn.functional.mse_loss(self.decoder(quantized), x) + commitment.sum()


def _mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _vq(vectors: np.ndarray) -> Contender:
    kind = optional("vector_quantize_pytorch", "ResidualVQ")
    quantizer = kind(dim=LATENT, codebook_size=CODES, num_quantizers=LEVELS, kmeans_init=True, kmeans_iters=10)
    model = _Autoencoder(quantizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    points = torch.from_numpy(vectors)

    def call() -> Work:
        for _ in range(_EPOCHS):
            for chosen in torch.randperm(len(points)).split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                model(points[chosen]).backward()
                optimizer.step()
        return Work(_EPOCHS)

    settings = "ResidualVQ (running means, k-means start) between the same MLPs, bare loop, fused AdamW, fp32"
    return Contender(name=REFERENCE, call=call, settings=settings)


def _cornac(vectors: np.ndarray) -> Contender:
    network = optional("cornac.models.tiger.tiger", "RQVAE")
    recommender = optional("cornac.models.tiger", "TIGER")(rqvae_n_epochs=_EPOCHS, device="cpu")
    recommender.device_ = "cpu"
    points = torch.from_numpy(vectors)

    def call() -> Work:
        start = network.kmeans_init_codebooks
        network.kmeans_init_codebooks = lambda *_: None  # it has a table of its own
        try:
            recommender._fit_rqvae(torch, points)
        finally:
            network.kmeans_init_codebooks = start
        return Work(_EPOCHS)

    return Contender(name="cornac RQVAE", call=call, settings="its own training loop, without its k-means start, fp32")


def _rechub(vectors: np.ndarray) -> Contender:
    kind = optional("torch_rechub.models.generative.rqvae", "RQVAEModel")
    model = kind(
        in_dim=DIM, num_emb_list=[CODES] * LEVELS, e_dim=LATENT, layers=list(HIDDEN), sk_epsilons=[0.0] * LEVELS
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    points = torch.from_numpy(vectors)

    def call() -> Work:
        for _ in range(_EPOCHS):
            for chosen in torch.randperm(len(points)).split(BATCH):
                batch = points[chosen]
                optimizer.zero_grad(set_to_none=True)
                out, quantization, _ = model(batch)
                model.compute_loss(out, quantization, xs=batch)[0].backward()
                optimizer.step()
        return Work(_EPOCHS)

    return Contender(name="torch-rechub RQVAE", call=call, settings="no Sinkhorn, bare loop, fused AdamW, fp32")


def _initialisation(setting: Setting, vectors: np.ndarray) -> Task:
    points = torch.from_numpy(vectors)
    reference = "cornac kmeans_init_codebooks"

    def theirs() -> Contender:
        model = optional("cornac.models.tiger.tiger", "RQVAE")(DIM, HIDDEN, LATENT, LEVELS, CODES)

        def call() -> Work:
            model.kmeans_init_codebooks(points)
            return Work(1.0)

        return Contender(name=reference, call=call, settings="k-means++, 10 iterations a level")

    def ours() -> Contender:
        model = _model(vectors)

        def call() -> Work:
            model.initialized.fill_(False)
            model.initialize(points)
            return Work(1.0)

        settings = "k-means++, at most 50 iterations a level or until nothing moves"
        return Contender(name="genrec initialize", ours=True, call=call, settings=settings, target="< 1 s")

    def rechub() -> Contender:
        kmeans = optional("torch_rechub.models.generative.rqvae", "kmeans")
        latents = _model(vectors).latents(points).detach()

        def call() -> Work:
            for _ in range(LEVELS):
                kmeans(latents, CODES, 10)
            return Work(1.0)

        return Contender(name="torch-rechub kmeans", call=call, settings="scikit-learn, 10 iterations a level")

    return Task(
        name=f"k-means initialisation of the RQ-VAE's codebooks ({len(vectors):,} x {DIM})",
        unit="s",
        contenders=[
            attempt(reference, theirs),
            attempt("torch-rechub kmeans", rechub),
            attempt("genrec initialize", ours),
        ],
        reference=reference,
    )


def _stream(setting: Setting, vectors: np.ndarray) -> Task:
    model = _model(vectors).eval()
    total = _STREAM // setting.few(1, 10)
    pool = torch.from_numpy(data.item_vectors(_CHUNK, DIM, seed=1))
    with FlopCounterMode(display=False) as counter:
        model.encode(pool)
    seconds = setting.machine.floor(counter.get_total_flops() / _CHUNK * total, total * DIM * 4.0)

    def call() -> Work:
        codes = np.empty((total, LEVELS), dtype=np.uint8)
        for begin in range(0, total, _CHUNK):
            count = min(_CHUNK, total - begin)
            codes[begin : begin + count] = model.encode(_chunk(pool, begin)[:count]).numpy()
        return Work(1.0)

    ours: Any = Contender(
        name="genrec RQVAE.encode",
        ours=True,
        call=call,
        settings=f"chunks of {_CHUNK:,} made as they are needed, codes kept as bytes, fp32",
        floor=seconds,
        target="< 300 MB",
    )
    return Task(
        name=f"Encoding {total:,} vectors of {DIM} to codes in one pass",
        unit="s",
        contenders=[ours],
        reference="",
    )


def _chunk(pool: Tensor, begin: int) -> Tensor:
    """Vectors of their own for every chunk, at the price of one pass over memory."""
    return pool * (1.0 + begin / _STREAM)
