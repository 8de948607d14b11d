"""Published results on the data sets of genrec, each with its source, to stand beside one's own in a report.

Leave-one-out, ranked over the full catalogue. Papers differ in what they do besides, above all in whether they mask
what the user has already met; ``masks_seen`` says so where it is known.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAVE_ONE_OUT = "leave_one_out"
_K = (5, 10)


@dataclass(frozen=True)
class Published:
    """A published row: metrics by name (``recall@10``), where they come from, and whether seen items were masked (None:
    not known)."""

    model: str
    data: str
    source: str
    metrics: dict[str, float]
    masks_seen: bool | None = None
    split: str = LEAVE_ONE_OUT


def published_for(data: str, split: str = LEAVE_ONE_OUT) -> list[Published]:
    """The published results on a data set such as ``amazon_beauty`` under a split, the best Recall@10 first."""
    found = [row for row in _ROWS if row.data == data and row.split == split]
    return sorted(found, key=lambda row: -row.metrics["recall@10"])


def _row(
    model: str,
    data: str,
    source: str,
    recall_5: float | None,
    ndcg_5: float | None,
    recall_10: float,
    ndcg_10: float,
    masks_seen: bool | None = None,
) -> Published:
    metrics = {"recall@5": recall_5, "recall@10": recall_10, "ndcg@5": ndcg_5, "ndcg@10": ndcg_10}
    return Published(model, data, source, {k: v for k, v in metrics.items() if v is not None}, masks_seen)


_BEAUTY, _SPORTS, _TOYS = "amazon_beauty", "amazon_sports", "amazon_toys"
_TIGER = "Rajput et al. 2023, arXiv 2305.05065"
_CORNAC = "github.com/PreferredAI/cornac"
_RPG = "Hou et al. 2025, github.com/facebookresearch/RPG_KDD2025"
_ESASREC = "eSASRec (RecSys 2025), github.com/blondered/transformer_benchmark"
_LETTER, _LC_REC, _RECBOLE = "the paper of LETTER", "the paper of LC-Rec", "RecBole"

_ROWS = (
    _row("TIGER", _BEAUTY, _TIGER, 0.0454, 0.0321, 0.0648, 0.0384, masks_seen=False),
    _row("TIGER", _SPORTS, _TIGER, 0.0264, 0.0181, 0.0400, 0.0225, masks_seen=False),
    _row("TIGER", _TOYS, _TIGER, 0.0521, 0.0371, 0.0712, 0.0432, masks_seen=False),
    _row("TIGER, reproduced", _BEAUTY, _CORNAC, 0.0419, 0.0270, 0.0634, 0.0338),
    _row("TIGER, reproduced", _SPORTS, _CORNAC, 0.0240, 0.0155, 0.0394, 0.0204),
    _row("TIGER, reproduced", _TOYS, _CORNAC, 0.0348, 0.0222, 0.0578, 0.0295),
    _row("LETTER-TIGER", _BEAUTY, _LETTER, 0.0431, 0.0286, 0.0672, 0.0364, masks_seen=False),
    _row("HSTU", _BEAUTY, _ESASREC, None, None, 0.0788, 0.0439),
    _row("HSTU", _SPORTS, _ESASREC, None, None, 0.0437, 0.0243),
    _row("HSTU", _TOYS, _ESASREC, None, None, 0.0778, 0.0450),
    _row("RPG", _BEAUTY, _RPG, 0.0550, 0.0381, 0.0809, 0.0464, masks_seen=False),
    _row("RPG", _SPORTS, _RPG, 0.0314, 0.0216, 0.0463, 0.0263, masks_seen=False),
    _row("RPG", _TOYS, _RPG, 0.0592, 0.0401, 0.0869, 0.0490, masks_seen=False),
    _row("LC-Rec", _BEAUTY, _LC_REC, 0.0525, 0.0352, 0.0791, 0.0438),
    _row("LC-Rec", _SPORTS, _LC_REC, 0.0281, 0.0181, 0.0422, 0.0226),
    _row("LC-Rec", _TOYS, _LC_REC, 0.0444, 0.0294, 0.0683, 0.0371),
    _row("SASRec, full cross-entropy", _BEAUTY, _RECBOLE, 0.0543, 0.0315, 0.0821, 0.0405, masks_seen=False),
    _row("SASRec, sampled softmax", _BEAUTY, _ESASREC, None, None, 0.0921, 0.0531, masks_seen=True),
    _row("SASRec, sampled softmax", _SPORTS, _ESASREC, None, None, 0.0569, 0.0314, masks_seen=True),
    _row("SASRec, sampled softmax", _TOYS, _ESASREC, None, None, 0.0970, 0.0580, masks_seen=True),
    _row("eSASRec", _BEAUTY, _ESASREC, None, None, 0.0928, 0.0523, masks_seen=True),
    _row("eSASRec", _SPORTS, _ESASREC, None, None, 0.0560, 0.0323, masks_seen=True),
    _row("eSASRec", _TOYS, _ESASREC, None, None, 0.0939, 0.0538, masks_seen=True),
)
