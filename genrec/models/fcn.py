"""FCN, first named DCNv3: crosses whose order grows linearly and exponentially (Li et al. 2024, arXiv 2407.13349)."""

from __future__ import annotations

from torch import Tensor, nn

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.models.row_model import RowModel, labels_of
from genrec.nn.crosses import MaskedCrossLayer
from genrec.nn.dropout import Dropout
from genrec.nn.fields import DenseVectors, FieldVectors
from genrec.nn.several import mean_of_shares


class FCN(RowModel):
    """A linear cross network, an exponential one, and the mean of their logits; no MLP.

    Both read the vectors of all fields, dense ones among them: the first halves of all vectors, whose crosses are
    kept, then the second halves, whose crosses are masked. Tri-BCE adds to the loss L of the mean those of the single
    networks, L_d and L_s, times max(0, L_d - L) and max(0, L_s - L). These weights are numbers here; a gradient through
    them, as in the authors' code, would push L up.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        num_linear_layers: Count = 3,
        num_exponential_layers: Count = 3,
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(FCN.__init__, locals(), "model")
        if embedding_dim % 2:
            raise GenrecError(
                f"model.embedding_dim={embedding_dim}: FCN masks the crosses of half a vector. Use an even number."
            )
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        num_dense = len(self.features.dense)
        width = (self.fields.num_fields + num_dense) * embedding_dim
        self.dense_vectors = DenseVectors(num_dense, embedding_dim)
        self.linear_crosses = nn.ModuleList(MaskedCrossLayer(width) for _ in range(num_linear_layers))
        self.exponential_crosses = nn.ModuleList(MaskedCrossLayer(width) for _ in range(num_exponential_layers))
        self.dropout = Dropout(dropout)
        self.linear_output = nn.Linear(width, 1)
        self.exponential_output = nn.Linear(width, 1)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        linear, exponential = self._both(fields, batch)
        return 0.5 * (linear + exponential)

    def task_losses(self, batch: RowBatch) -> tuple[dict[str, Tensor], Tensor | None]:
        """Tri-BCE; of values, the same of squared errors."""
        fields = self.fields(batch)
        task, (labels, share) = self.tasks[0], labels_of(batch, 0)
        both = [(self.bias + logits)[:, 0] for logits in self._both(fields, batch)]
        loss = self.loss_of(task, 0.5 * (both[0] + both[1]), labels, share)
        total = loss
        for output in both:
            single = self.loss_of(task, output, labels, share)
            behind = (single - loss).detach()
            if batch.known is not None:  # a share of a batch, whose other rows have a say
                behind = mean_of_shares(behind, len(batch))
            total = total + behind.clamp(min=0.0) * single
        return {task.name: total}, self.regularisation(fields)

    def _both(self, fields: FieldVectors, batch: RowBatch) -> tuple[Tensor, Tensor]:
        """(B, 1) the logits of the linear and of the exponential network."""
        vectors = self.dense_vectors(fields, batch).unflatten(2, (2, -1))
        first = vectors.transpose(1, 2).flatten(1)
        linear = exponential = first
        for layer in self.linear_crosses:
            linear = self.dropout(layer(first, linear))
        for layer in self.exponential_crosses:
            exponential = self.dropout(layer(exponential, exponential))
        return self.linear_output(linear), self.exponential_output(exponential)
