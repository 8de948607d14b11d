"""RQ-VAE: its loss by hand, training by a bare loop, and the faults of public implementations."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError, ItemBatch, Task
from genrec.metrics.codebook import evaluate_quantization
from genrec.models import rqvae
from genrec.models.rqvae import RQVAE, LinearPath


def item_vectors(num_items: int = 300, width: int = 12) -> np.ndarray:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(5, width))
    return (np.tanh(generator.normal(size=(num_items, 5)) * 2) @ mixing + 0.5).astype(np.float32)


def make(vectors: np.ndarray | None = None, seed: int = 0, **changes: Any) -> RQVAE:
    torch.manual_seed(seed)
    vectors = item_vectors() if vectors is None else vectors
    options = {"hidden_dims": [32, 16], "latent_dim": 6, "num_embeddings": 16, **changes}
    return RQVAE(DataSpec(num_users=1, num_items=len(vectors), item_vectors=vectors), **options)


def batch_of(vectors: np.ndarray) -> ItemBatch:
    return ItemBatch(items=torch.arange(len(vectors)), vectors=torch.from_numpy(vectors))


def train(model: RQVAE, vectors: np.ndarray, steps: int = 150) -> None:
    points = torch.from_numpy(vectors)
    model.initialize(points)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(steps):
        loss = model.loss(batch_of(vectors)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def relative_error(model: RQVAE, vectors: np.ndarray) -> float:
    points = torch.from_numpy(vectors)
    with torch.no_grad():
        rest = points - model.reconstruct(points)
    return float(rest.square().sum() / (points - points.mean(0)).square().sum())


def test_says_what_it_is() -> None:
    assert RQVAE.view == "items" and RQVAE.task is Task.TOKENIZER
    assert make().codebook_sizes == (16, 16, 16)


def test_loss_by_hand() -> None:
    """Fault: reconstruction averaged over width against a summed quantisation loss collapses the codes."""
    vectors = item_vectors(40)
    model = make(vectors).eval()
    losses = model.loss(batch_of(vectors))
    points = (vectors - vectors.mean(0)) / np.sqrt(((vectors - vectors.mean(0)) ** 2).mean())
    rebuilt = (model(torch.from_numpy(vectors)).reconstructed.detach().numpy() - vectors.mean(0)) / float(
        model.input_scale
    )
    reconstruction = ((points - rebuilt) ** 2).sum(1).mean()
    rest = model.latents(torch.from_numpy(vectors)).detach()
    quantization = 0.0
    for codebook in model.codebooks():
        rest = rest - codebook[((rest[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)]
        quantization += 1.25 * float(rest.square().sum(1).mean())
    assert losses.count == 40
    assert float(losses.parts["reconstruction"]) == pytest.approx(reconstruction, rel=1e-4)
    assert float(losses.parts["quantization"]) == pytest.approx(quantization, rel=1e-4)
    assert float(losses.total.detach()) == pytest.approx(reconstruction + quantization, rel=1e-4)


@pytest.mark.parametrize("codebook_update", ["gradient", "ema"])
@pytest.mark.parametrize("gradient_estimator", ["rotation", "straight_through"])
def test_training_beats_its_start_without_collapse(codebook_update: str, gradient_estimator: str) -> None:
    vectors = item_vectors()
    shape: dict[str, Any] = {"latent_dim": 3, "num_quantizers": 2, "num_embeddings": 8}
    model = make(codebook_update=codebook_update, gradient_estimator=gradient_estimator, **shape)
    model.initialize(torch.from_numpy(vectors))
    before = relative_error(model, vectors)
    train(model, vectors, steps=100)
    assert relative_error(model, vectors) < (0.8 if gradient_estimator == "straight_through" else 0.95) * before
    use = evaluate_quantization(model.encode(torch.from_numpy(vectors)), model.codebook_sizes)
    assert min(use[f"perplexity/level_{level}"] for level in range(2)) > 6  # of 8 codes


def test_untrained_model_is_residual_kmeans_of_principal_components() -> None:
    vectors = item_vectors()
    model = make(latent_dim=12).eval()
    points = torch.from_numpy(vectors)
    model.initialize(points)
    latents = model.latents(points)
    centred = (points - points.mean(0)) / model.input_scale
    torch.testing.assert_close(latents @ latents.T, centred @ centred.T, atol=2e-3, rtol=1e-3)  # a rotation
    decoded = (model.decode(model.encode(points)) - model.input_mean) / model.input_scale
    assert isinstance(model.decoder, LinearPath)
    expected = model.decoder.linear(model.quantizer.decode(model.encode(points)))
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)


def test_latents_and_reconstruction_can_be_negative() -> None:
    """Fault: BatchNorm and ReLU at the end force both to be non-negative, which no signed vector can match."""
    vectors = item_vectors()
    for linear_path in (True, False):
        model = make(linear_path=linear_path)
        train(model, vectors, steps=20)
        output = model(torch.from_numpy(vectors))
        assert (output.latents < 0).any() and (output.reconstructed < 0).any()
        assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())


def test_codes_survive_save_and_load(tmp_path: Any) -> None:
    vectors = item_vectors()
    model = make()
    train(model, vectors, steps=20)
    codes = model.encode(torch.from_numpy(vectors))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = make(seed=9).eval()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other.encode(torch.from_numpy(vectors)), codes)
    pieces = torch.cat([other.encode(part) for part in torch.from_numpy(vectors).split(7)])
    assert torch.equal(pieces, codes)  # whatever the batch an item comes in


def test_equal_seeds_train_to_equal_codes() -> None:
    vectors = item_vectors()
    codes = []
    for _ in range(2):
        model = make(dropout=0.1)
        train(model, vectors, steps=10)
        codes.append(model.encode(torch.from_numpy(vectors)))
    assert torch.equal(*codes)


def test_initialize_happens_once_and_only_when_asked_for() -> None:
    points = torch.from_numpy(item_vectors())
    model = make()
    model.initialize(points)
    before = [codebook.clone() for codebook in model.codebooks()]
    model.initialize(points + 5)
    assert all(torch.equal(old, new) for old, new in zip(before, model.codebooks(), strict=True))
    assert model.training
    plain = make(kmeans_init=False)
    before = [codebook.clone() for codebook in plain.codebooks()]
    plain.initialize(points)
    assert all(torch.equal(old, new) for old, new in zip(before, plain.codebooks(), strict=True))


def test_scale_of_the_vectors_changes_nothing() -> None:
    vectors = item_vectors()
    small, large = make(vectors).eval(), make(vectors * 1000).eval()
    first, second = small.loss(batch_of(vectors)).total, large.loss(batch_of(vectors * 1000)).total
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_constant_dimensions_and_constant_vectors_stay_finite() -> None:
    vectors = item_vectors()
    vectors[:, 3] = 0.7
    for points in (vectors, np.ones((10, 4), np.float32)):
        model = make(points)
        train(model, points, steps=3)
        assert model.reconstruct(torch.from_numpy(points)).isfinite().all()


def test_latent_may_be_wider_than_the_vectors() -> None:
    vectors = item_vectors()
    model = make(latent_dim=20)
    train(model, vectors, steps=5)
    assert model.latents(torch.from_numpy(vectors)).shape == (300, 20)


def test_missing_vectors_name_the_encoders() -> None:
    with pytest.raises(GenrecError, match="encoder=tfidf"):
        RQVAE(DataSpec(num_users=1, num_items=3))


def test_half_precision_changes_neither_codes_nor_the_precision_of_latents() -> None:
    vectors = item_vectors()
    points = torch.from_numpy(vectors)
    for linear_path in (True, False):
        model = make(linear_path=linear_path)
        model.initialize(points)
        codes = model.eval().encode(points)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model.encode(points), codes)
            assert model.latents(points).dtype == torch.float32
            losses = model.loss(batch_of(vectors))
        assert losses.total.dtype == torch.float32
        torch.testing.assert_close(losses.total, model.loss(batch_of(vectors)).total, rtol=2e-2, atol=0)


def test_codebooks_are_placed_by_a_sample_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    latents = RQVAE.latents
    monkeypatch.setattr(rqvae, "_SAMPLE", 100)
    monkeypatch.setattr(RQVAE, "latents", lambda self, vectors: seen.append(len(vectors)) or latents(self, vectors))
    vectors = torch.randn(150, 8, generator=torch.Generator().manual_seed(0))
    for count in (100, 150):
        model = RQVAE(DataSpec(item_vectors=vectors.numpy()), hidden_dims=[8], latent_dim=4, num_embeddings=4)
        model.initialize(vectors[:count])
        assert bool(model.initialized)
    assert seen == [100, 100]
