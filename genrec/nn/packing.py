"""Short rows side by side in one attention window, which batched products and the softmax of a CPU like better.

Products of a few tokens cost what their call costs, and the softmax of fewer than 16 keys is computed one by one. So
several rows form one window whose bias hides each row from the others: more entries, several times faster.
Shapes: B rows, G rows of a window, H heads, Q queries and S keys of a row.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

MASKED = -1e9  # finite, so that a row without any visible key gives numbers rather than nan
_KEYS = 32  # a window has at least about so many keys


def rows_of_window(length: int) -> int:
    """How many rows of ``length`` keys to put into one window."""
    return -(-_KEYS // length)


def dividing_rows_of_window(length: int, num_rows: int) -> int:
    """The same, but a number near it that divides ``num_rows`` where there is one."""
    wanted = rows_of_window(length)
    near = [*range(wanted, 2 * wanted + 1), *range(wanted - 1, wanted // 2 - 1, -1), *range(2 * wanted, 4 * wanted)]
    return next((count for count in near if count > 0 and num_rows % count == 0), wanted)


def pad_rows(x: Tensor, multiple: int) -> Tensor:
    """``x`` (B, ...) with rows of zeros at its end, so that their number is a multiple."""
    missing = -len(x) % multiple
    return x if missing == 0 else functional.pad(x, (0, 0) * (x.ndim - 1) + (0, missing))


def block_diagonal(bias: Tensor, rows: int) -> Tensor:
    """The bias of windows of G rows (B / G or 1, H, G * Q, G * S) from that of the rows (B or 1, H, Q, S).

    Rows of zeros are added where G does not divide B.
    """
    if rows == 1:
        return bias
    blocks = bias.expand(rows, -1, -1, -1) if len(bias) == 1 else pad_rows(bias, rows)
    blocks = blocks.unflatten(0, (-1, rows)).permute(0, 2, 3, 4, 1)  # (B / G, H, Q, S, G)
    num_windows, heads, queries, keys, _ = blocks.shape
    out = blocks.new_full((num_windows, heads, rows, queries, rows, keys), MASKED)
    out.diagonal(dim1=2, dim2=4).copy_(blocks)
    return out.view(num_windows, heads, rows * queries, rows * keys)
