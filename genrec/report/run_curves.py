"""The curves of a run: losses, validation metrics by epoch with the best one marked, the learning rate."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrec.records import FINISHED, RunRecord
from genrec.report.charts import Series, line_chart
from genrec.report.html import Markup, Section, details, grid, join
from genrec.tables import BASELINE

_VAL, _TRAIN, _LOSS = "val/", "train/", "loss"
_FIRST = ("recall", "ndcg", "auc", "log_loss", "rmse")  # kinds of metrics that people look at first
_MAX_CHARTS, _MAX_SERIES = 4, 8


def best_epoch(record: RunRecord) -> tuple[float, int, int] | None:
    """The best value of the monitored metric so far, its epoch and the last epoch; None where nothing was measured.

    Of a run that has chosen an epoch it is that one: one that was better by less than ``min_delta`` is passed over.
    """
    name = record.monitor
    values = [(row[name], int(row["epoch"])) for row in record.epochs if name and name in row]
    if not values:
        return None
    pick = min if record.direction == "min" else max
    chosen = [entry for entry in values if entry[1] == record.best_epoch]
    value, epoch = chosen[-1] if chosen else pick(values, key=lambda entry: entry[0])
    return value, epoch, int(record.epochs[-1]["epoch"])


def _what_was_tested(record: RunRecord) -> str:
    """Which weights the test metrics are of."""
    chosen = record.best_epoch if record.state == FINISHED else None
    if chosen == 0:
        return "The weights of the last epoch are tested."
    if best_epoch(record) is None:
        return ""
    tested = "; its weights are tested" if chosen else ""
    return f"The best epoch is that of the monitored metric{tested}."


def curves_section(record: RunRecord) -> Section | None:
    """Curves over epochs; None before there are two."""
    if len({row.get("epoch") for row in record.epochs}) < 2:
        return None
    kinds = _kinds(record)
    chosen = [kind for kind in kinds if kind in (_kind(record.monitor or ""), *_FIRST)] or list(kinds)
    first = [_validation(record, kind, kinds[kind]) for kind in chosen[:_MAX_CHARTS]]
    rest = [_validation(record, kind, names) for kind, names in kinds.items() if kind not in chosen[:_MAX_CHARTS]]
    losses = _losses(record)
    shown = [*first[:1], *losses[:1], *first[1:], *losses[1:], _rate(record)]
    further = [*rest, *_others(record)]
    folded = details("More curves", grid(*further, wide=True)) if further else None
    return Section("Curves", join([grid(*shown, wide=True), folded]), note=_what_was_tested(record))


def series_of(record: RunRecord, name: str, label: str | None = None, colour: int | None = None) -> Series | None:
    """A column of the history over epochs; None where no epoch has it."""
    points = [(row["epoch"], row[name]) for row in record.epochs if name in row and "epoch" in row]
    if not points:
        return None
    return Series(label or name, [x for x, _ in points], [y for _, y in points], colour=colour)


def _kinds(record: RunRecord) -> dict[str, list[str]]:
    """Validation metrics by kind, ``{"recall": ["val/recall@5", ...]}``; that of the monitored one first."""
    kinds: dict[str, list[str]] = {}
    for name in _columns(record):
        if name.startswith(_VAL) and not _is_loss(name):
            kinds.setdefault(_kind(name), []).append(name)
    monitored = _kind(record.monitor or "")
    order = {kind: place for place, kind in enumerate((monitored, *_FIRST))}
    return {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: order.get(kind, len(order)))}


def _kind(name: str) -> str:
    """``val/click/auc`` and ``val/auc`` are of a kind, and so are ``val/recall@5`` and ``val/recall@10``."""
    return re.sub(r"@\d+$", "", name.rpartition("/")[2])


def _is_loss(name: str) -> bool:
    return _kind(name) == _LOSS or _kind(name).startswith(f"{_LOSS}_")


def _columns(record: RunRecord) -> list[str]:
    return list(dict.fromkeys(name for row in record.epochs for name in row))


def _validation(record: RunRecord, kind: str, names: Sequence[str]) -> Markup | None:
    found = [series_of(record, name, name.removeprefix(_VAL), colour) for colour, name in enumerate(names)]
    series = [one for one in found if one is not None][:_MAX_SERIES]
    if not any(len(one.x) > 1 for one in series):
        return None
    monitored = record.monitor if record.monitor in names else None
    best = best_epoch(record) if monitored else None
    if monitored:
        series += _baselines(record, monitored, len(series))
    return line_chart(series, title=f"Validation {kind.replace('_', ' ')}", x_label="epoch", marks=_marks(best))


def _baselines(record: RunRecord, monitored: str, colour: int) -> list[Series]:
    """What each baseline reaches, as a level across the chart."""
    epochs = [row["epoch"] for row in record.epochs if "epoch" in row]
    ends = [min(epochs), max(epochs)]
    levels = {
        name.removeprefix(BASELINE).partition("/"): value
        for name, value in record.final.items()
        if name.startswith(BASELINE)
    }
    chosen = {rival: value for (rival, _, metric), value in levels.items() if metric == monitored}
    label = monitored.removeprefix(_VAL)
    return [Series(f"{rival} {label}", ends, [value, value], dashed=True, colour=colour + place)
            for place, (rival, value) in enumerate(chosen.items())]  # fmt: skip


def _losses(record: RunRecord) -> list[Markup]:
    """The loss in training and validation, then its parts."""
    best = best_epoch(record) if record.monitor == f"{_VAL}{_LOSS}" else None
    whole = [series_of(record, f"{part}{_LOSS}", label) for part, label in ((_TRAIN, "training"), (_VAL, "validation"))]
    parts = [name for name in _columns(record) if name.startswith(_TRAIN) and _is_loss(name) and _kind(name) != _LOSS]
    split = [
        series_of(record, name, name.removeprefix(_TRAIN).replace("loss_", "").replace("_", " ")) for name in parts
    ]
    return [*_chart("Loss", whole, best), *_chart("Parts of the training loss", split[:_MAX_SERIES])]


def _chart(title: str, series: Sequence[Series | None], best: tuple[float, int, int] | None = None) -> list[Markup]:
    known = [one for one in series if one is not None]
    if not any(len(one.x) > 1 for one in known):
        return []
    values = [value for one in known for value in one.y if value is not None]
    wide = min(values) > 0 and max(values) > 30 * min(values)
    return [line_chart(known, title=title, x_label="epoch", log_y=wide, marks=_marks(best))]


def _marks(best: tuple[float, int, int] | None) -> list[tuple[float, str]]:
    return [(float(best[1]), f"best epoch: {best[1]}")] if best else []


def _rate(record: RunRecord) -> Markup | None:
    found = series_of(record, f"{_TRAIN}lr", "learning rate")
    if found is None or len(found.x) < 2:
        return None
    most = max(value for value in found.y if value is not None)
    return line_chart([found], title="Learning rate", x_label="epoch", y_range=(0.0, 1.1 * most or 1.0))


def _others(record: RunRecord) -> list[Markup]:
    """Whatever else was logged by epoch, such as the norm of gradients."""
    known = {f"{_TRAIN}lr", f"{_TRAIN}{_LOSS}"}
    names = [name for name in _columns(record) if "/" in name and not name.startswith(_VAL) and name not in known]
    names = [name for name in names if not _is_loss(name)]
    charts: list[Markup] = []
    for name in names:
        charts += _chart(name, [series_of(record, name)])
    return charts
