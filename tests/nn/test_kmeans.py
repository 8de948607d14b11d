"""K-means against scikit-learn and on data whose answer is known."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from genrec.nn.kmeans import balanced, kmeans, nearest, place, squared_distances


def blobs(per_cluster: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    kinds = torch.arange(4).repeat(per_cluster)
    return centres[kinds] + torch.randn(len(kinds), 2, generator=generator), kinds


def test_separate_blobs_are_found_whatever_the_seed() -> None:
    points, kinds = blobs()
    for seed in range(5):
        centroids, codes = kmeans(points, 4, seed=seed)
        for kind in range(4):
            assert len(codes[kinds == kind].unique()) == 1
            torch.testing.assert_close(centroids[codes[kinds == kind][0]], points[kinds == kind].mean(0))


def test_inertia_is_as_low_as_scikit_learns() -> None:
    points = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    centroids, codes = kmeans(points, 12, seed=0, max_iters=100)
    ours = float((points - centroids[codes]).square().sum())
    theirs = KMeans(12, n_init="auto", random_state=0).fit(points.numpy()).inertia_
    assert theirs is not None and ours < 1.05 * theirs


def test_nearest_and_distances_equal_brute_force() -> None:
    points, centroids = torch.randn(20, 3), torch.randn(6, 3)
    brute = ((points[:, None] - centroids[None]) ** 2).sum(-1)
    torch.testing.assert_close(squared_distances(points, centroids), brute)
    codes, distances = nearest(points, centroids)
    assert torch.equal(codes, brute.argmin(1))
    torch.testing.assert_close(distances, brute.min(1).values)


def test_equal_seeds_are_equal_to_the_bit() -> None:
    points = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    first, second = kmeans(points, 10, seed=7), kmeans(points, 10, seed=7)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_no_cluster_is_empty_while_points_differ() -> None:
    points = torch.cat([torch.zeros(500, 2), torch.randn(20, 2, generator=torch.Generator().manual_seed(0))])
    for seed in range(5):
        assert len(kmeans(points, 15, seed=seed)[1].unique()) == 15


def test_fewer_points_or_fewer_distinct_points_than_clusters() -> None:
    centroids, codes = kmeans(torch.randn(3, 2), 5)
    assert centroids.shape == (5, 2) and len(codes.unique()) == 3
    centroids, codes = kmeans(torch.ones(10, 2), 4)
    assert torch.equal(centroids[codes], torch.ones(10, 2))


def test_place_is_stable_and_obeys_the_capacities() -> None:
    cost = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    capacities = torch.tensor([10, 0, 12, 3, 5, 10])
    codes = place(cost, capacities)
    assert (torch.bincount(codes, minlength=6) <= capacities).all()
    own = cost[torch.arange(40), codes]
    for row, column in np.ndindex(40, 6):  # nobody prefers a column that has room, or one that keeps a dearer row
        if cost[row, column] < own[row]:
            kept = own[codes == column]
            assert len(kept) == capacities[column] and (kept <= cost[row, column]).all()


def test_place_refuses_too_many_rows() -> None:
    with pytest.raises(ValueError, match="3 places cannot hold 4 rows"):
        place(torch.rand(4, 2), torch.tensor([1, 2]))


def test_balanced_clusters_have_equal_sizes() -> None:
    points = torch.cat([torch.randn(90, 2) * 0.1, torch.randn(10, 2) + 9])
    centroids, codes = balanced(points, kmeans(points, 4)[0], capacity=25)
    assert torch.bincount(codes, minlength=4).tolist() == [25] * 4
    assert centroids.shape == (4, 2)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="K >= 1"):
        kmeans(torch.zeros(0, 2), 3)
