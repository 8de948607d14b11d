"""The results of a run: beside its baselines, the best that can be reached, and what others published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genrec.directions import cost_of, is_ratio, metric_mode
from genrec.records import RunRecord
from genrec.report.charts import bar_chart
from genrec.report.html import Cell, Markup, Section, details, element, grid, join, paragraph, table
from genrec.report.published import Published, published_for
from genrec.report.scales import format_number
from genrec.tables import (
    BASELINE,
    BEYOND_ACCURACY,
    CEILING,
    TEST_PREFIX,
    USUAL_K,
    baseline_rows,
    metric_columns,
    share_of_ceiling,
)

_COLOURS = {"this run": 0, "baseline": 5, "ceiling": 2, "published": 4}
_PROTOCOLS = (
    "Published rows are from the papers and repositories named. Data set and split are the same and the whole "
    "catalogue is ranked, but protocols may differ in details, above all in whether items that a user has already met "
    "are masked"
)


def results_section(record: RunRecord) -> Section | None:
    """Tables of the final metrics; None where there are none yet."""
    if not any(name.startswith(TEST_PREFIX) for name in record.final):
        return None
    columns = metric_columns(record.final)
    published = published_of(record)
    body = [
        _charts(record, columns, published),
        _table(record, columns, published) if columns else None,
        paragraph(f"{_PROTOCOLS} ({_masking(record)}).", quiet=True) if published else None,
        _beyond(record),
        details("All metrics", _all_metrics(record), open_=not columns),
    ]
    return Section("Results", join(body), note=_note(record))


def headline_metric(record: RunRecord) -> tuple[str, str, str] | None:
    """The test metric one looks at first, its value, and how it stands to the best baseline or the ceiling."""
    name = _headline_name(record)
    if name is None:
        return None
    value = record.final[TEST_PREFIX + name]
    ceiling = record.final.get(CEILING + TEST_PREFIX + name)
    share = share_of_ceiling(value, ceiling, name)
    if share is not None:
        above = " above chance" if name.endswith("auc") else ""
        return TEST_PREFIX + name, format_number(value), f"{100 * share:.0f} % of what can be reached{above}"
    rivals = {rival: row[name] for rival, row in baseline_rows(record.final).items() if name in row}
    if not rivals:
        return TEST_PREFIX + name, format_number(value), ""
    best = min(rivals, key=lambda rival: cost_of(name, rivals[rival]))
    return TEST_PREFIX + name, format_number(value), f"best baseline: {best} {format_number(rivals[best])}"


def published_of(record: RunRecord) -> list[Published]:
    """The published rows that a run may be held against: same data set, same split, recommendations as lists."""
    choices = record.run.get("choices") or {}
    split = str(choices.get("split", "")) or _split_of(record)
    data = str(choices.get("data", "")) or record.data
    lists = any(name.startswith(f"{TEST_PREFIX}recall@") for name in record.final)
    return published_for(_category(record) or data, split) if lists else []


def _category(record: RunRecord) -> str | None:
    """``data=amazon`` with another category is the data set of that category."""
    source = (record.config.get("data") or {}).get("source") or {}
    known = {"Beauty": "amazon_beauty", "Sports_and_Outdoors": "amazon_sports", "Toys_and_Games": "amazon_toys"}
    return known.get(str(source.get("category"))) if isinstance(source, Mapping) else None


def _split_of(record: RunRecord) -> str:
    target = str((record.config.get("split") or {}).get("_target_", ""))
    return "leave_one_out" if target.endswith(".LeaveOneOut") else target


def _headline_name(record: RunRecord) -> str | None:
    names = metric_columns(record.final)
    monitored = (record.monitor or "").removeprefix("val/")
    wanted = (monitored, f"recall@{USUAL_K}", *names)
    return next((name for name in wanted if TEST_PREFIX + name in record.final), None)


def _masking(record: RunRecord) -> str:
    seen = record.config.get("filter_seen")
    return (
        "this run masks them" if seen else "this run keeps them" if seen is False else "see filter_seen in the config"
    )


def _note(record: RunRecord) -> str:
    if not any(name.startswith(f"{TEST_PREFIX}recall@") for name in record.final):
        return "Of the test part."
    seen = "left out of" if record.config.get("filter_seen") else "kept in"
    return f"Of the test part. All items are ranked, and those of the history are {seen} the lists."


def _table(record: RunRecord, columns: Sequence[str], published: Sequence[Published]) -> Markup:
    own = {name: record.final.get(TEST_PREFIX + name) for name in columns}
    baselines = baseline_rows(record.final)
    ceiling = {name: record.final.get(CEILING + TEST_PREFIX + name) for name in columns}
    named: list[tuple[object, str, Mapping[str, float | None]]] = [(record.model, "this run", own)]
    named += [(name, "baseline", dict(row)) for name, row in baselines.items()]
    compared = len(named)
    rows = [[_name(name), kind, *(row.get(column) for column in columns)] for name, kind, row in named]
    if any(value is not None for value in ceiling.values()):
        rows.append([_name("best that can be reached"), "ceiling", *ceiling.values()])
        shares = [_share(own[column], ceiling[column], column) for column in columns]
        rows.append([_name(f"{record.model} as a share of it"), "ceiling", *shares])
    for row in published:
        rows.append([_name(row.model, _source(row)), "published", *(row.metrics.get(c) for c in columns)])
    winners = [_best([row.get(column) for _, _, row in named], column) for column in columns]

    def highlight(row: int, column: int) -> bool | str:
        if row < compared and column >= 2 and winners[column - 2] == row:
            return True
        return "own" if row == 0 else "muted" if row >= compared and column < 2 else False

    return table(["model", "", *columns], rows, highlight=highlight)


def _name(name: object, remark: str = "") -> Cell:
    small = element("div", remark, class_="remark muted") if remark else None
    return Cell(join([name, small]), str(name), "wrap" if remark else "")


def _source(row: Published) -> str:
    masked = {True: "; seen items masked", False: "; seen items kept", None: ""}[row.masks_seen]
    return f"{row.source}{masked}"


def _share(value: float | None, ceiling: float | None, name: str) -> Cell | None:
    share = share_of_ceiling(value, ceiling, name)
    return None if share is None else Cell(f"{100 * share:.0f} %", share)


def _best(values: Sequence[float | None], name: str) -> int | None:
    known = {place: value for place, value in enumerate(values) if value is not None}
    if len(known) < 2:
        return None
    return min(known, key=lambda place: cost_of(name, known[place]))


def _charts(record: RunRecord, columns: Sequence[str], published: Sequence[Published]) -> Markup | None:
    """The two metrics that people look at first, of the run and of everything that it is held against."""
    first = _headline_name(record)
    others = [name for name in columns if _kind(name) != _kind(first or "")]
    beside = sorted(others, key=lambda name: name.rpartition("@")[2] != (first or "").rpartition("@")[2])
    charts = [_chart(record, name, published) for name in (first, *beside[:1]) if name is not None]
    shown = [chart for chart in charts if chart is not None]
    return grid(*shown, wide=True) if shown else None


def _kind(name: str) -> str:
    return name.rpartition("/")[2].partition("@")[0]


def _chart(record: RunRecord, name: str, published: Sequence[Published]) -> Markup | None:
    entries = [(record.model, "this run", record.final.get(TEST_PREFIX + name))]
    entries += [(rival, "baseline", row.get(name)) for rival, row in baseline_rows(record.final).items()]
    entries.append(("ceiling", "ceiling", record.final.get(CEILING + TEST_PREFIX + name)))
    entries += [(row.model, "published", row.metrics.get(name)) for row in published]
    known = [(label, kind, value) for label, kind, value in entries if value is not None]
    if len(known) < 2:
        return None
    known.sort(key=lambda entry: cost_of(name, entry[2]))
    kinds = {kind: colour for kind, colour in _COLOURS.items() if any(entry[1] == kind for entry in known)}
    series = {kind: [value if own == kind else None for _, own, value in known] for kind in kinds}
    better = ", nearest to 1 is best" if is_ratio(name) else ", less is better" if metric_mode(name) == "min" else ""
    return bar_chart([label for label, _, _ in known], series, title=f"Test {name}{better}", horizontal=True,
                     one_each=True, colours=list(kinds.values()))  # fmt: skip


def _beyond(record: RunRecord) -> Markup | None:
    """What else is known of the lists: how much of the catalogue they cover, how rare and how varied they are."""
    own = {
        name.removeprefix(TEST_PREFIX): value for name, value in record.final.items() if name.startswith(TEST_PREFIX)
    }
    cut_offs = {int(name.removeprefix("coverage@")) for name in own if name.startswith("coverage@")}
    if not cut_offs:
        return None
    k = USUAL_K if USUAL_K in cut_offs else max(cut_offs)
    names = [f"{name}@{k}" for name in BEYOND_ACCURACY if f"{name}@{k}" in own]
    rows = [[record.model, *(own.get(name) for name in names)]]
    rows += [[rival, *(row.get(name) for name in names)] for rival, row in baseline_rows(record.final).items()]
    heads = [name.rpartition("@")[0].replace("_", " ") for name in names]
    shown = table(["model", *heads], rows, highlight=lambda row, column: "own" if row == 0 else False)
    return join([element("h3", f"Beyond accuracy, lists of {k}"), shown])


def _all_metrics(record: RunRecord) -> Markup:
    """Every final metric, a row each, of the run, of its baselines and of the ceiling."""
    rivals = list(dict.fromkeys(name.split("/")[1] for name in record.final if name.startswith(BASELINE)))
    prefixes = {record.model: "", **{rival: f"{BASELINE}{rival}/" for rival in rivals}, "ceiling": CEILING}
    names = sorted({_plain_name(name) for name in record.final})
    prefixes = {who: prefix for who, prefix in prefixes.items() if any(prefix + name in record.final for name in names)}
    rows = [[name, *(record.final.get(prefix + name) for prefix in prefixes.values())] for name in names]
    return table(["metric", *prefixes], rows)


def _plain_name(name: str) -> str:
    """A metric without whose it is: ``baseline/item_knn/test/recall@10`` is ``test/recall@10``."""
    if name.startswith(BASELINE):
        return name.split("/", 2)[2]
    return name.removeprefix(CEILING)
