"""For whom a model works: means of a metric over users with short and long histories, popular and rare targets.

Pure functions from the table of test users (``RunRecord.users``) to small tables with 95 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import polars as pl

NUM_BUCKETS = 5
Z = 1.959964  # 97.5 % of a normal distribution lie below
_FEW_VALUES = 6  # this many distinct values are buckets themselves


def bucket_edges(values: pl.Series, count: int = NUM_BUCKETS) -> list[float]:
    """Ascending lower edges of at most ``count`` buckets with about equally many values each.

    Equal values share a bucket, and no bucket is empty; the first edge is the least value.
    """
    known = values.drop_nulls().drop_nans().sort()
    distinct = known.unique().sort()
    if len(distinct) <= min(count, _FEW_VALUES):
        return [float(value) for value in distinct]
    at = [known[math.floor(len(known) * part / count)] for part in range(count)]
    return [float(edge) for edge in dict.fromkeys(at)]


def bucket_names(edges: Sequence[float], values: pl.Series) -> list[str]:
    """What each bucket holds in words: ``5``, ``6 to 9``, ``10 and more``, from the values that are in it."""
    known = values.drop_nulls().drop_nans()
    names = []
    for low, high in pairwise([*edges, math.inf]):
        last = float(known.filter((known >= low) & (known < high)).max() or low)  # type: ignore[arg-type]
        if math.isinf(high) and len(edges) > 1 and last > low:
            names.append(f"{_short(low)} and more")
        else:
            names.append(_short(low) if last == low else f"{_short(low)} to {_short(last)}")
    return names


def segment_table(users: pl.DataFrame, by: str, metrics: Sequence[str], *, count: int = NUM_BUCKETS) -> pl.DataFrame:
    """A row per bucket of the column ``by`` and metric: ``bucket`` (its number), ``name``, ``users``, ``metric``,
    ``mean``, and ``low`` and ``high``, its 95 % interval (``mean_interval``) as far as it lies within 0..1, as metrics
    do. Users without a value are left out."""
    known = users.filter(pl.col(by).is_not_null() & ~pl.col(by).cast(pl.Float64).is_nan())
    edges = bucket_edges(known[by], count)
    names = bucket_names(edges, known[by])
    rows = []
    for bucket, (name, (low, high)) in enumerate(zip(names, pairwise([*edges, math.inf]), strict=True)):
        inside = known.filter((pl.col(by) >= low) & (pl.col(by) < high))
        for metric in metrics:
            mean, low, high = mean_interval(inside[metric])
            rows.append((bucket, name, len(inside), metric, mean, max(low, 0.0), min(high, 1.0)))
    columns = ["bucket", "name", "users", "metric", "mean", "low", "high"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def mean_interval(values: pl.Series) -> tuple[float, float, float]:
    """Mean of ``values`` and its 95 % interval: Wilson's where all are 0 or 1, else the normal one; NaN of nothing."""
    known = values.drop_nulls().drop_nans().cast(pl.Float64)
    n = len(known)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = float(known.mean())  # type: ignore[arg-type]
    if known.is_in([0.0, 1.0]).all():
        return mean, *wilson(mean * n, n)
    half = Z * float(known.std() or 0.0) / math.sqrt(n) if n > 1 else math.inf  # type: ignore[arg-type]
    return mean, mean - half, mean + half


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score (1927): within 0..1 and of sensible width at both ends."""
    share, z2 = successes / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _short(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
