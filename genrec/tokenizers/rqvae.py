"""Semantic IDs from an RQ-VAE, trained here through the trainer it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import DataSpec, RunContext
from genrec.tokenizers.collisions import EXTRA_DIGIT, Policy, check_policy, resolve_collisions
from genrec.tokenizers.quality import check_levels, clipped_codebook_size, quality_report
from genrec.tokenizers.result import TokenizerResult
from genrec.tokenizers.sharing import Crew, crew_of, in_batches, shared_features

if TYPE_CHECKING:
    from genrec.data.ragged import Ragged

_BATCH = 4096  # items encoded at a time


@dataclass(kw_only=True)
class RQVAETokenizer:
    """Trains ``model`` on text and co-occurrence features and codes all items with it.

    ``model`` builds an RQ-VAE from a DataSpec, ``view`` makes batches of features, ``trainer`` fits the model,
    ``optimizer`` maps its parameters to an optimizer. The other arguments are those of RQ-KMeans; ``num_levels`` and
    the clipped ``codebook_size`` are handed to the model.
    """

    shares_work: ClassVar[bool] = True  # several processes may call ``fit`` together; the leader has the result

    model: Callable[..., Any]
    trainer: Any
    optimizer: Callable[..., Any]
    view: Callable[..., Any]
    num_levels: int = 3
    codebook_size: int = 256
    text_dim: int = 96
    collaborative_dim: int = 64
    window: int = 3
    collisions: Policy = EXTRA_DIGIT

    def __post_init__(self) -> None:
        check_policy(self.collisions)
        check_levels(self.num_levels, self.codebook_size)

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        crew = crew_of(context)
        features = shared_features(crew, self, vectors, train, context.seed)
        model = self._train(features, train, context)
        codes, latents, rebuilt = (part.numpy() for part in _encode(model, torch.from_numpy(features), crew))
        codebooks = [codebook.numpy() for codebook in model.codebooks()]
        ids = resolve_collisions(
            self.collisions,
            codes,
            vectors=latents,
            codebooks=codebooks,
            popularity=np.bincount(train.values, minlength=len(features)),
        )
        return TokenizerResult(ids, quality_report(features, rebuilt, codes, codebooks), codebooks)

    def _train(self, features: np.ndarray, train: Ragged, context: RunContext) -> Any:
        spec = DataSpec(num_users=len(train), num_items=len(features), item_vectors=features, train=train)
        size = clipped_codebook_size(self.codebook_size, self.num_levels, len(features))
        torch.manual_seed(context.seed)  # the weights depend on the seed alone, not on what ran before
        model = self.model(spec, num_quantizers=self.num_levels, num_embeddings=size)
        # Loggers stay with the run above: two trainings in one curve would make its steps go backwards.
        own: Any = {"optimizer": self.optimizer, "scheduler": None, "loggers": (), "callbacks": ()}
        stage = context.child("tokenizer", keys="tokenizer.", **own)
        self.trainer.fit(model, self.view(features), stage)
        return model.cpu().eval()


@torch.no_grad()
def _encode(model: Any, features: Tensor, crew: Crew | None) -> tuple[Tensor, ...]:
    """Codes (N, C), latents (N, latent_dim) and rebuilt features (N, D) of all items."""

    def encode(batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes = model.encode(batch)
        return codes, model.latents(batch), model.decode(codes)

    return in_batches(crew, encode, features, _BATCH)
