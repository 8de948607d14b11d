"""The RQ-VAE tokenizer, trained for a few steps through the real trainer."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from genrec.contracts import GenrecError, RunContext
from genrec.data.views import ItemsView
from genrec.models.rqvae import RQVAE
from genrec.tokenizers.rqvae import RQVAETokenizer
from genrec.trainers.rqvae import RQVAETrainer


def make(max_epochs: int = 3, **changes: Any) -> RQVAETokenizer:
    options: dict[str, Any] = {"codebook_size": 8, "text_dim": 8, "collaborative_dim": 8, **changes}
    return RQVAETokenizer(
        model=partial(RQVAE, hidden_dims=[16], latent_dim=8),
        trainer=RQVAETrainer(max_epochs=max_epochs, batch_size=64, monitor="train/loss", patience=None),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        view=partial(ItemsView, val_ratio=0.0, test_ratio=0.0),
        **options,
    )


def test_every_item_gets_an_id_of_its_own_and_a_report(catalogue: Any, context: RunContext) -> None:
    result = make().fit(catalogue.vectors, catalogue.train, context)
    ids = result.semantic_ids
    assert ids.num_items == 240 and ids.codebook_sizes[:3] == (8, 8, 8) and ids.num_levels == 4
    assert result.codebooks is not None and [codebook.shape for codebook in result.codebooks] == [(8, 8)] * 3
    assert result.report["unique_share"] == len(np.unique(ids.codes[:, :3], axis=0)) / 240
    assert 0 < result.report["reconstruction_error"] < 1
    for code in range(8):  # the planted kinds are found, as by k-means
        assert len(np.unique(catalogue.kinds[ids.codes[:, 0] == code])) <= 2


def test_it_trains_in_a_folder_of_its_own(catalogue: Any, context: RunContext) -> None:
    make().fit(catalogue.vectors, catalogue.train, context)
    assert (context.output_dir / "tokenizer" / "checkpoints" / "best_model.pt").exists()
    assert not (context.output_dir / "checkpoints").exists()


def test_equal_seeds_give_equal_ids_whatever_ran_before(catalogue: Any, context: RunContext) -> None:
    first = make().fit(catalogue.vectors, catalogue.train, context.child("a")).semantic_ids
    torch.rand(5)
    second = make().fit(catalogue.vectors, catalogue.train, context.child("b")).semantic_ids
    assert first.fingerprint == second.fingerprint


def test_sinkhorn_needs_no_further_digit(catalogue: Any, context: RunContext) -> None:
    ids = make(collisions="sinkhorn").fit(catalogue.vectors, catalogue.train, context).semantic_ids
    assert ids.codebook_sizes == (8, 8, 8)


def test_levels_and_clipped_sizes_reach_the_model(catalogue: Any, context: RunContext) -> None:
    ids = make(num_levels=2, codebook_size=256).fit(catalogue.vectors, catalogue.train, context).semantic_ids
    assert ids.codebook_sizes[:2] == (60, 60) and ids.num_content_levels == 2


def test_wrong_options_are_refused() -> None:
    with pytest.raises(GenrecError, match="collisions=none"):
        make(collisions="none")
    with pytest.raises(GenrecError, match="num_levels"):
        make(num_levels=0)
