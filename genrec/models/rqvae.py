"""RQ-VAE: an autoencoder whose latent is coded by residual quantisation (Lee et al. 2022; TIGER, arXiv 2305.05065).

Shapes: B batch, D width of an item vector, C levels (``num_quantizers``), K codes per level (``num_embeddings``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genrec.annotations import Count, Natural, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, GenrecError, ItemBatch, Losses, Task
from genrec.nn.mlp import MLP
from genrec.nn.quantizer import Quantized, ResidualQuantizer

_SAMPLE = 262_144  # vectors that place the codebooks


class RQVAEOutput(NamedTuple):
    """``reconstructed`` (B, D), ``codes`` (B, C), ``latents`` (B, latent_dim) as quantised, ``quantization_loss``."""

    reconstructed: Tensor
    codes: Tensor
    latents: Tensor
    quantization_loss: Tensor


class LinearPath(nn.Module):
    """A linear map from ``weight`` (out, in) plus an MLP whose last layer starts at zero."""

    def __init__(self, mlp: MLP, weight: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.mlp = mlp
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            mlp.output.weight.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.mlp(inputs).add_(self.linear(inputs))


class RQVAE(nn.Module):
    """Item vectors -> MLP -> residual codes -> MLP -> item vectors.

    Loss per item: |x - x'|^2 + sum over levels of |sg[r] - e|^2 + ``commitment_cost`` |r - sg[e]|^2, summed over width.
    Vectors are centred and divided by one number, their root mean square, so that the loss has the same scale for every
    encoder; directions and the relative weight of dimensions stay as they are. ``forward`` and ``decode`` undo it.
    Latent and reconstruction end in linear layers: they can have any sign. Under autocast the hidden layers and the
    reconstruction are in half precision, the latents are not, and ``encode`` never is: codes do not depend on it.
    ``codebook_update``, ``gradient_estimator``,
    ``ema_decay`` and ``restart_after`` are those of ``genrec.nn.quantizer.VectorQuantizer``.

    ``linear_path`` adds a linear map beside each MLP, started at the principal directions, and starts the MLPs at zero.
    The untrained model is then residual k-means of principal components, which training improves on. Without it the
    first steps, when the decoder knows nothing yet, move the latents away from all but a few codes (collapse).
    """

    view = "items"
    task = Task.TOKENIZER

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_dims: Sequence[Count] = (512, 256, 128),
        latent_dim: Count = 32,
        num_quantizers: Count = 3,
        num_embeddings: Count = 256,
        commitment_cost: NotNegative = 0.25,
        dropout: Rate = 0.0,
        codebook_update: Literal["gradient", "ema"] = "gradient",
        gradient_estimator: Literal["straight_through", "rotation"] = "straight_through",
        ema_decay: Rate = 0.99,
        restart_after: Natural = 100,
        kmeans_init: bool = True,
        linear_path: bool = True,
    ) -> None:
        check_arguments(RQVAE.__init__, locals(), "model")
        super().__init__()
        if spec.item_vectors is None:
            raise GenrecError(
                "model=rqvae quantises item vectors, but there are none. "
                "Choose an encoder: encoder=tfidf, collaborative or file."
            )
        vectors = torch.as_tensor(spec.item_vectors, dtype=torch.float32)
        self.input_dim = vectors.shape[1]
        self.codebook_sizes = (num_embeddings,) * num_quantizers
        self.kmeans_init = kmeans_init
        widths = [int(width) for width in hidden_dims]
        mean = vectors.mean(0)
        scale = (vectors - mean).square().mean().sqrt()
        scale = torch.where(scale > 0, scale, torch.ones(()))
        encoder = MLP(self.input_dim, widths, latent_dim, dropout=dropout)
        decoder = MLP(latent_dim, widths[::-1], self.input_dim, dropout=dropout)
        if linear_path:
            directions = _principal_directions((vectors - mean) / scale, latent_dim)
            encoder, decoder = LinearPath(encoder, directions.T), LinearPath(decoder, directions)
        self.encoder: LinearPath | MLP = encoder
        self.decoder: LinearPath | MLP = decoder
        self.quantizer = ResidualQuantizer(
            num_quantizers,
            num_embeddings,
            latent_dim,
            commitment_cost=commitment_cost,
            codebook_update=codebook_update,
            gradient_estimator=gradient_estimator,
            ema_decay=ema_decay,
            restart_after=restart_after,
        )
        self.register_buffer("input_mean", mean)
        self.register_buffer("input_scale", scale)
        self.register_buffer("initialized", torch.tensor(False))
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.initialized: Tensor

    def loss(self, batch: ItemBatch) -> Losses:
        """Mean over the items of the batch."""
        inputs = self._scaled(batch.vectors)
        quantized = self.quantizer(self._encoded(inputs))
        reconstruction = mse_loss(self.decoder(quantized.vectors).to(inputs), inputs, reduction="sum") / len(inputs)
        parts = {"reconstruction": reconstruction.detach(), "quantization": quantized.loss.detach()}
        return Losses(reconstruction + quantized.loss, len(inputs), parts)

    def forward(self, vectors: Tensor) -> RQVAEOutput:
        latents = self.latents(vectors)
        quantized: Quantized = self.quantizer(latents)
        return RQVAEOutput(self._restored(self.decoder(quantized.vectors)), quantized.codes, latents, quantized.loss)

    def encode(self, vectors: Tensor) -> Tensor:
        """(B, C) codes of item vectors (B, D)."""
        with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
            return self.quantizer.encode(self.latents(vectors))

    def decode(self, codes: Tensor) -> Tensor:
        """(B, D) item vectors that ``codes`` (B, C) stand for."""
        return self._restored(self.decoder(self.quantizer.decode(codes)))

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """(B, D) what is left of item vectors (B, D) after coding."""
        return self.decode(self.encode(vectors))

    def latents(self, vectors: Tensor) -> Tensor:
        """(B, latent_dim) what is quantised."""
        return self._encoded(self._scaled(vectors))

    def codebooks(self) -> list[Tensor]:
        """The (K, latent_dim) code vectors of each level."""
        return [quantizer.codebook.detach() for quantizer in self.quantizer.quantizers]

    @torch.no_grad()
    def initialize(self, vectors: Tensor) -> None:
        """K-means places every codebook on the latents of ``vectors`` (N, D); to be called once, before the first step.

        Does nothing with ``kmeans_init=False``, nor on a model that was initialised before, so a resumed run may call
        it too. Of more than 262,144 vectors a random sample of so many is looked at.
        """
        if not self.kmeans_init or bool(self.initialized):
            return
        if len(vectors) > _SAMPLE:
            vectors = vectors[torch.randperm(len(vectors))[:_SAMPLE]]
        training = self.training
        self.eval()  # no dropout while the codes find their places
        self.quantizer.initialize(self.latents(vectors.to(self.input_mean)), seed=int(torch.randint(2**31, ())))
        self.train(training)
        self.initialized.fill_(True)

    def _encoded(self, scaled: Tensor) -> Tensor:
        """The encoder, what leads directly to the latents in float32 whatever the precision of the hidden layers."""
        path = self.encoder
        mlp = path.mlp if isinstance(path, LinearPath) else path
        hidden = mlp.hidden(scaled)
        with torch.autocast(scaled.device.type, enabled=False):
            latents = mlp.output(hidden.to(scaled))
            return latents.add_(path.linear(scaled)) if isinstance(path, LinearPath) else latents

    def _scaled(self, vectors: Tensor) -> Tensor:
        return (vectors - self.input_mean).div_(self.input_scale)

    def _restored(self, scaled: Tensor) -> Tensor:
        return scaled * self.input_scale + self.input_mean


def _principal_directions(centred: Tensor, count: int) -> Tensor:
    """(D, count) orthonormal columns along which ``centred`` (N, D) varies most; zeros beyond D."""
    points = centred.double()
    directions = torch.linalg.eigh(points.T @ points)[1].flip(1)[:, :count]
    strongest = directions.abs().argmax(0)
    directions = directions * directions[strongest, torch.arange(directions.shape[1])].sign()  # eigh leaves signs open
    return nn.functional.pad(directions, (0, count - directions.shape[1])).float()
