"""How evenly the codes of semantic IDs are used, how many items share one, and how fast codes single an item out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from genrec.contracts import GenrecError
from genrec.records import RunRecord
from genrec.report.charts import Series, bar_chart, line_chart
from genrec.report.drawing import HEIGHT
from genrec.report.html import Cell, Markup, Section, definition_list, grid, join, table

IDS_FILE = "semantic_ids.npz"
_MAX_LINES = 6  # levels drawn one by one
_QUALITY = {
    "unique_share": "distinct content codes / items",
    "num_colliding_items": "items that share theirs",
    "largest_collision_group": "items under the most crowded one",
    "usage_rate": "codes in use, all levels",
    "reconstruction_error": "variance left unexplained",
}
_NOTE = (
    "Perplexity is the number of equally frequent codes that would be as uncertain: the closer to the size of the "
    "codebook, the more evenly it is used."
)


def codebook_section(record: RunRecord) -> Section | None:
    """Charts and tables of the semantic IDs of a run; None where it has none."""
    ids = _load(record.folder / IDS_FILE)
    if ids is None:
        return None
    codes, sizes, num_content_levels = ids
    usage = [np.bincount(codes[:, level], minlength=size) for level, size in enumerate(sizes)]
    body = [
        definition_list(_facts(codes, sizes, num_content_levels, record)),
        grid(_usage_chart(usage, num_content_levels), _prefix_chart(codes), wide=True),
        _table(usage, num_content_levels, record),
    ]
    return Section("Semantic IDs", join(body), note=_NOTE)


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of ``counts`` (K,) in nats; 0 log 0 is 0."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(math.exp(-(share * np.log(share)).sum()))


def distinct_prefixes(codes: np.ndarray) -> list[int]:
    """Of ``codes`` (N, C): how many distinct beginnings of 1, 2 ... C codes there are."""
    groups, found = np.zeros(len(codes), dtype=np.int64), []
    for level in range(codes.shape[1]):
        pairs = groups * (int(codes[:, level].max(initial=0)) + 1) + codes[:, level]
        distinct, groups = np.unique(pairs, return_inverse=True)
        found.append(len(distinct))
    return found


def _load(path: Path) -> tuple[np.ndarray, tuple[int, ...], int] | None:
    from genrec.semantic_ids import SemanticIds

    if not path.exists():
        return None
    try:
        ids = SemanticIds.load(path)
    except GenrecError:  # the page tells what can be read
        return None
    return (ids.codes, ids.codebook_sizes, ids.num_content_levels) if ids.num_items else None


def _quality(record: RunRecord) -> dict[str, float]:
    """The report of the tokenizer, or of a model that is one."""
    if record.tokenizer:
        return dict(record.tokenizer)
    prefixes = ("tokenizer/", "test/")
    return {name.partition("/")[2]: value for prefix in prefixes for name, value in record.final.items()
            if name.startswith(prefix)}  # fmt: skip


def _facts(codes: np.ndarray, sizes: tuple[int, ...], num_content_levels: int, record: RunRecord) -> dict[str, object]:
    extra = len(sizes) - num_content_levels
    levels = f"{num_content_levels}" + (f" and {extra} to tell colliding items apart" if extra else "")
    quality = _quality(record)
    known = {words: _fact(name, quality[name]) for name, words in _QUALITY.items() if name in quality}
    return {"items": f"{len(codes):,}", "levels": levels, **known}


def _fact(name: str, value: float) -> str:
    return f"{value:,.0f}" if name in ("num_colliding_items", "largest_collision_group") else f"{100 * value:.1f} %"


def _usage_chart(usage: list[np.ndarray], num_content_levels: int) -> Markup:
    if len(usage) > _MAX_LINES:
        used = [float((counts > 0).mean()) for counts in usage]
        evenness = [perplexity(counts) / len(counts) for counts in usage]
        x = list(range(1, len(usage) + 1))
        return line_chart([Series("share of codes in use", x, used), Series("perplexity / size", x, evenness)],
                          title="Use of the codebooks", x_label="level", y_range=(0, 1.02))  # fmt: skip
    series = []
    for level, counts in enumerate(usage):
        ordered = np.sort(counts)[::-1]
        name = f"level {level + 1}" if level < num_content_levels else "extra digit"
        series.append(
            Series(name, list(range(1, len(ordered) + 1)), ordered.tolist(), dashed=level >= num_content_levels)
        )
    longest, most = max(len(counts) for counts in usage), max(int(counts.max()) for counts in usage)
    return line_chart(series, title="Items per code, the most frequent code first", x_label="code",
                      y_label="items", log_x=longest > 40, log_y=most > 100)  # fmt: skip


def _prefix_chart(codes: np.ndarray) -> Markup:
    counts = distinct_prefixes(codes)
    names = ["first code" if level == 0 else f"first {level + 1}" for level in range(len(counts))]
    if len(counts) > _MAX_LINES:
        x = list(range(1, len(counts) + 1))
        return line_chart([Series("distinct beginnings", x, counts)], title="Items that codes tell apart",
                          x_label="codes known", y_range=(0, len(codes) * 1.05))  # fmt: skip
    labels = [f"{count:,} ({100 * count / len(codes):.0f} %)" for count in counts]
    return bar_chart(names, {"distinct": counts}, title=f"Distinct beginnings among {len(codes):,} items",
                     horizontal=True, labels={"distinct": labels}, height=HEIGHT)  # fmt: skip


def _table(usage: list[np.ndarray], num_content_levels: int, record: RunRecord) -> Markup:
    """Of the IDs as they are; next to it the perplexity of the content codes before collisions were resolved."""
    before = [record.tokenizer.get(f"perplexity/level_{level}") for level in range(len(usage))]
    told = any(value is not None for value in before)
    head = ["level", "codes", "in use", "share in use", "perplexity", "most items on a code", "median"]
    rows: list[list[object]] = []
    for level, counts in enumerate(usage):
        used = int((counts > 0).sum())
        name = f"{level + 1}" if level < num_content_levels else f"{level + 1}, extra digit"
        share = Cell(f"{100 * used / len(counts):.0f} %", used / len(counts))
        row = [
            name,
            len(counts),
            used,
            share,
            perplexity(counts),
            int(counts.max()),
            Cell(f"{np.median(counts[counts > 0]):g}", float(np.median(counts[counts > 0]))),
        ]
        rows.append([*row, before[level]] if told else row)
    return table([*head, "perplexity before collisions"] if told else head, rows)
