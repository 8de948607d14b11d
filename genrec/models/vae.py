"""Mult-VAE: recommend by what a variational autoencoder makes of a user's set of items.

Shapes: B users, L items of a row, N items, H width of the first hidden layer, Z width of the latent, k list length.
Source: Liang et al. 2018 (arXiv 1802.05814).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Natural, NotNegative, Rate, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, Losses, Recommendations, SequenceBatch, Task
from genrec.decoding.options import check_count
from genrec.decoding.sampling import sample_sets
from genrec.decoding.topk import rank_rows
from genrec.nn.serving import evaluating, recent


class VAE(nn.Module):
    """A latent normal variable per user, from which a multinomial over the catalogue draws the user's items.

    Loss per user: minus the log-likelihood of the items, summed, plus beta times the KL divergence of the posterior
    from N(0, I) (equation 3 of the paper with its beta). Beta grows evenly from 0 to ``kl_weight`` over the first
    ``anneal_steps`` training batches; how far it has come is part of the state, so a resumed run goes on where it was.
    The input is the set of items as a vector of length one, with ``dropout``; ``hidden_dims`` are the layers of the
    encoder, and mirrored those of the decoder. A training row is one user with the last ``max_history`` items, in no
    order. ``recommend`` decodes the mean of the posterior; ``generate`` decodes draws from the prior.
    """

    view = "sequences"
    task = Task.RETRIEVAL
    training_mode = "users"
    masks_seen = True  # it is trained to reproduce what it is given

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_dims: Annotated[Sequence[Count], MinLen(1)] = (600,),
        latent_dim: Count = 200,
        dropout: Rate = 0.5,
        kl_weight: NotNegative = 0.2,
        anneal_steps: Natural = 2000,
        max_history: Count = 200,
    ) -> None:
        check_arguments(VAE.__init__, locals(), "model")
        super().__init__()
        if spec.train is None:
            raise GenrecError("VAE learns how many items users have, and no training part was given. Choose data.")
        widths = [int(width) for width in hidden_dims]
        self.max_history = max_history
        self.kl_weight = kl_weight
        self.anneal_steps = anneal_steps
        self.dropout = nn.Dropout(dropout)
        # The first layer of the encoder as a table, so that a row costs what its items cost and not the catalogue.
        self.items = nn.Embedding(spec.num_items, widths[0])
        self.items_bias = nn.Parameter(torch.zeros(widths[0]))
        self.encoder = nn.ModuleList(nn.Linear(width, following) for width, following in pairwise(widths))
        self.posterior = nn.Linear(widths[-1], 2 * latent_dim)
        self.decoder = nn.ModuleList(
            nn.Linear(width, following) for width, following in pairwise([latent_dim, *widths[::-1]])
        )
        self.output = nn.Linear(widths[0], spec.num_items)
        self.steps: Tensor  # () training batches so far
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.set_sizes: Tensor  # (users with items,) how many distinct items each has
        self.register_buffer("set_sizes", torch.from_numpy(_set_sizes(spec.train.last(max_history))), persistent=False)
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)):
                nn.init.xavier_uniform_(part.weight)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    @property
    def latent_dim(self) -> int:
        return self.posterior.out_features // 2

    @property
    def beta(self) -> Tensor:
        """() the present weight of the KL divergence."""
        if self.anneal_steps == 0:
            return self.items_bias.new_tensor(self.kl_weight)
        return self.kl_weight * (self.steps / self.anneal_steps).clamp(max=1.0)

    def loss(self, batch: SequenceBatch) -> Losses:
        """The negative ELBO in nats, averaged over users; of each, the items are summed (equation 2 times -1)."""
        mean, log_variance = self.encode(batch.items, batch.lengths)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        log_probs = torch.log_softmax(self.decode(latent).to(mean.dtype), dim=-1)  # (B, N)
        targets, present = _as_sets(batch.targets, batch.targets != IGNORE)
        likelihood = (log_probs.gather(1, targets) * present).sum(dim=1).mean()
        divergence = 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(dim=1).mean()
        beta = self.beta
        if self.training:
            self.steps += 1
        parts = {"negative_log_likelihood": -likelihood.detach(), "kl": divergence.detach(), "beta": beta}
        return Losses(beta * divergence - likelihood, len(batch.items), parts)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k best items by the logits that the mean of the posterior decodes to."""
        with evaluating(self), torch.autocast(batch.items.device.type, enabled=False):  # bfloat16 scores are often ties
            mean, _ = self.encode(*recent(batch.items, batch.lengths, self.max_history))
            return rank_rows(
                lambda rows: self.decode(mean[rows]),
                num_rows=len(mean),
                num_items=self.items.num_embeddings,
                k=k,
                seen=batch.seen,
            )

    @torch.no_grad()
    def generate(
        self,
        num_samples: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Recommendations:
        """The items of users who do not exist: (S, largest set) filled with IGNORE, and the log-probability of each.

        Draws z from the prior N(0, I), the number of items from those of the training users, and that many distinct
        items from the multinomial that z decodes to, one after the other.
        """
        check_count(num_samples)
        device = self.items.weight.device
        with evaluating(self), torch.autocast(device.type, enabled=False):
            latent = torch.randn(num_samples, self.latent_dim, generator=generator, device=device)
            drawn = torch.randint(len(self.set_sizes), (num_samples,), generator=generator, device=device)
            return sample_sets(
                self.decode(latent.to(self.items_bias.dtype)),
                self.set_sizes[drawn],
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                generator=generator,
            )

    def encode(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, Z) of the posterior; of the items (B, L) the first ``lengths`` (B,) count."""
        places = torch.arange(items.shape[1], device=items.device)
        members, present = _as_sets(items, places < lengths[:, None])
        size = present.sum(dim=1, keepdim=True).clamp(min=1)
        weights = self.dropout(present.to(self.items_bias.dtype) / size.sqrt())
        x = functional.embedding_bag(members, self.items.weight, mode="sum", per_sample_weights=weights)
        x = torch.tanh(x + self.items_bias)
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        mean, log_variance = self.posterior(x).to(self.items_bias.dtype).chunk(2, dim=-1)  # autocast narrows it
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """Logits (B, N) of latent vectors (B, Z)."""
        x = latent
        for layer in self.decoder:
            x = torch.tanh(layer(x))
        return self.output(x)


def _as_sets(items: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid items (B, L) in ascending order, and which places hold one for the first time; the others hold 0."""
    none = torch.iinfo(items.dtype).max
    ordered = torch.where(valid, items, none).sort(dim=1).values
    present = ordered != none
    present[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return ordered.masked_fill(~present, 0), present


def _set_sizes(rows: Iterable[np.ndarray]) -> np.ndarray:
    return np.array([len(np.unique(row)) for row in rows if len(row)] or [1], dtype=np.int64)
