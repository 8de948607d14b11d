"""Training LightGCN with BPR: seconds an epoch, on the same graph, d 64, 2 layers, batches of 8,192 edges.

Peers: torch-geometric's LightGCN driven as in its own example, once with the list of edges that the example gives it
and once with a sparse adjacency, which its layers multiply in one product; and RecBole's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from experiments.speed import data
from experiments.speed.measure import Contender, Task, Work
from experiments.speed.ours import Training
from experiments.speed.setting import Setting, attempt, optional
from genrec.contracts import DataSpec
from genrec.data.graph import GraphView
from genrec.data.sequences import SequencesView
from genrec.graph import TypedGraph

DIM, LAYERS, BATCH = 64, 2, 8192
REFERENCE = "torch-geometric LightGCN"


def tasks(setting: Setting) -> Iterator[Task]:
    lastfm, name = data.load_lastfm()
    movielens = data.invented_sequences(943, 1682, 100_000)
    for view, title in ((lastfm, name), (movielens, "a graph of MovieLens-100K's size")):
        yield _task(setting, view, title)


def _task(setting: Setting, view: SequencesView, title: str) -> Task:
    torch.manual_seed(0)
    contenders = [
        attempt(REFERENCE, lambda: _geometric(setting, view, sparse=False), quoted=".63 s, 3.7 s"),
        attempt(f"{REFERENCE}, sparse adjacency", lambda: _geometric(setting, view, sparse=True)),
        attempt("RecBole LightGCN", lambda: _recbole(setting, view, title)),
        attempt("genrec LightGCN", lambda: _ours(setting, view)),
    ]
    edges = len(view.train.values)
    return Task(
        name=f"An epoch of LightGCN on {title} ({edges:,} edges, d {DIM}, {LAYERS} layers, BPR)",
        unit="s",
        contenders=contenders,
        reference=REFERENCE,
    )


def _geometric(setting: Setting, view: SequencesView, *, sparse: bool) -> Contender:
    network = optional("torch_geometric.nn.models", "LightGCN")
    train, num_users, num_items = view.train, len(view.train), view.num_items
    size = num_users + num_items
    forward = torch.from_numpy(np.stack([train.row_of_value, train.values + num_users]))
    both = torch.cat([forward, forward.flip(0)], dim=1)
    graph: Any = both
    if sparse:
        graph = torch.sparse_coo_tensor(both, torch.ones(both.shape[1]), (size, size)).to_sparse_csr()
    model = network(size, embedding_dim=DIM, num_layers=LAYERS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    num_edges = forward.shape[1]

    def call() -> Work:
        order = torch.randperm(num_edges)
        for begin in range(0, num_edges, BATCH):
            met = forward[:, order[begin : begin + BATCH]]
            unmet = torch.stack([met[0], torch.randint(num_users, size, (met.shape[1],))])
            pairs = torch.cat([met, unmet], dim=1)
            optimizer.zero_grad()
            first, second = model(graph, pairs).chunk(2)
            model.recommendation_loss(first, second, node_id=pairs.unique()).backward()
            optimizer.step()
        return Work(1)

    how = "a sparse adjacency, normalised in every pass" if sparse else "the list of edges"
    return Contender(
        name=f"{REFERENCE}, sparse adjacency" if sparse else REFERENCE,
        call=call,
        settings=f"the loop of its example on {how}, batches of {BATCH} edges, unmet items not rejected, fused Adam",
    )


def _recbole(setting: Setting, view: SequencesView, title: str) -> Contender:
    from experiments.speed.recbole import GraphPeer

    peer = GraphPeer(setting, view, title, dim=DIM, layers=LAYERS, batch_size=BATCH)

    def call() -> Work:
        peer.train_epoch()
        return Work(1)

    settings = f"its trainer, batches of {BATCH} edges, its own uniform sampler, Adam"
    return Contender(name="RecBole LightGCN", call=call, settings=settings)


def _ours(setting: Setting, view: SequencesView) -> Contender:
    model_class = optional("genrec.models.lightgcn", "LightGCN")
    graph = TypedGraph(view.train, view.num_items)
    spec = DataSpec(len(view.train), view.num_items, train=view.train, graph=graph)
    model = model_class(spec, embedding_dim=DIM, num_layers=LAYERS)
    training = Training(model, GraphView(view, graph), setting.folder, batch_size=BATCH, epochs=True)
    return Contender(
        name="genrec LightGCN",
        ours=True,
        call=training,
        settings=f"real trainer, batches of {BATCH} edges, unmet items rejected if met, fused AdamW, fp32",
        target="3x",
    )
