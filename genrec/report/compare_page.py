"""A comparison as a page: the verdict, intervals as a picture, segments, wins and losses, and what was changed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from genrec.artifacts import write_text
from genrec.report.charts import bar_chart
from genrec.report.compare_charts import Mark, Tally, forest, tallies
from genrec.report.compare_tables import (
    bounds,
    confidence,
    cost_texts,
    decimals,
    p_text,
    percent,
    setting_text,
    signed,
    spread,
    summary,
    with_spread,
)  # fmt: skip
from genrec.report.comparison import (
    BETTER,
    EQUAL,
    UNCLEAR,
    WORSE,
    Comparison,
    Difference,
    Gain,
    Segment,
    smaller_is_better,
)
from genrec.report.html import (
    Cell,
    Markup,
    Section,
    badge,
    details,
    element,
    grid,
    inline_code,
    join,
    page,
    paragraph,
    table,
    tiles,
)  # fmt: skip
from genrec.report.scales import format_number
from genrec.report.sides import Side

_BADGES = {BETTER: "good", WORSE: "bad", UNCLEAR: "", EQUAL: ""}
_SHOWN_METRICS = 4  # of a user, beside each other


def write_compare_page(found: Comparison, path: Path) -> Path:
    """Writes the page of a comparison; opens from disk and asks nothing of the network."""
    write_text(Path(path), compare_html(found))
    return Path(path)


def compare_html(found: Comparison) -> str:
    sections = [
        Section("", _verdict(found)),
        Section("Differences", _differences(found), note=_how_to_read(found)),
        *([Section("Segments", _segments(found), note=_segments_note(found))] if found.segments else []),
        *([Section("Wins and losses", _wins(found), note=_wins_note(found))] if _counted(found) else []),
        *([Section("Users", _gains(found), note="Those whose lists changed most, by the mean over the metrics.")]
          if found.gains or found.losses else []),
        Section("What was changed", _settings(found), note="Keys of the config whose values differ."),
        *([Section("What it took", _costs(found))] if found.costs else []),
        Section("Method", _method(found)),
    ]  # fmt: skip
    others = " and ".join(side.name for side in found.sides[1:])
    sections[0] = replace(sections[0], body=join([element("style", _style()), sections[0].body]))
    return page(f"{others} against {found.reference.name}", sections, subtitle=_subtitle(found))


def _style() -> Markup:
    return Markup(resources.files("genrec.report").joinpath("compare.css").read_text(encoding="utf-8"))


def _subtitle(found: Comparison) -> Markup:
    return join([f"{found.reference.run.data}, {found.size:,} test {found.unit}", *_verdict_badges(found)])


def _verdict_badges(found: Comparison) -> list[Markup]:
    several = len(found.sides) > 2
    ones = [found.of(found.primary, side) for side in range(1, len(found.sides))]
    return [_badge(one.verdict, f"{found.sides[one.side].name} " if several else "") for one in ones]


def _badge(verdict: str, name: str = "") -> Markup:
    return badge(f"{name}{verdict}", _BADGES[verdict])


def _verdict(found: Comparison) -> Markup:
    sentences = [element("p", summary(found, side), class_="verdict") for side in range(1, len(found.sides))]
    shown = found.of(found.primary, 1)
    digits = decimals(shown.interval)
    entries = [
        (f"{found.primary}, {side.name}", format_number(found.intervals[found.primary][place].value),
         _remark(found, place))
        for place, side in enumerate(found.sides)
    ]  # fmt: skip
    if len(found.sides) == 2:
        entries.append(("difference", signed(shown.over_users.value, digits), bounds(shown.interval, digits)))
        entries.append(("relative", percent(shown.relative), f"p {_equals(p_text(shown.p_value))}"))
    notes = [paragraph(note, quiet=True) for note in found.notes]
    return join([*sentences, tiles(entries), *notes, _sides(found)])


def _sides(found: Comparison) -> Markup:
    rows = [
        [join([element("span", class_=f"side c{place}"), side.name]), Cell(inline_code(side.given), side.given, "wrap"),
         ", ".join(str(seed) for seed in side.seeds), _day(side)]
        for place, side in enumerate(found.sides)
    ]  # fmt: skip
    return table(["compared", "where", "seed", "run"], rows, sortable=False)


def _day(side: Side) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(side.run.started)) if side.run.started else "-"


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _remark(found: Comparison, side: int) -> str:
    values = found.seed_values[found.primary][side]
    told = [f"± {spread(values):.4f} over {len(values)} seeds"] if len(values) > 1 else []
    if side and len(found.sides) > 2:
        one = found.of(found.primary, side)
        told.append(f"{signed(one.over_users.value, decimals(one.interval))}, {one.verdict}")
    return "; ".join(told)


def _differences(found: Comparison) -> Markup:
    families: dict[str, list[str]] = {}
    for metric in found.metrics:
        families.setdefault(_family(metric), []).append(metric)
    pictures = [_values(found, families["lists"])] if "lists" in families else []
    pictures += [_family_forest(found, name, metrics) for name, metrics in families.items()]
    return join([_beside(pictures), *(_difference_table(found, side) for side in range(1, len(found.sides)))])


def _values(found: Comparison, metrics: Sequence[str]) -> Markup:
    series = {side.name: [found.intervals[name][place].value for name in metrics]
              for place, side in enumerate(found.sides)}  # fmt: skip
    errors = {side.name: [(found.intervals[name][place].low, found.intervals[name][place].high) for name in metrics]
              for place, side in enumerate(found.sides)}  # fmt: skip
    return bar_chart(metrics, series, errors=errors, title=f"Means with {confidence(found)} intervals")


def _family(metric: str) -> str:
    """Metrics of one family share a picture: their differences are of one size and mean the same."""
    kind = metric.rpartition("/")[2]
    if "@" in kind:
        return "lists"
    return {"gauc": "auc", "rmse": "mae"}.get(kind, kind)


def _family_forest(found: Comparison, family: str, metrics: Sequence[str]) -> Markup:
    series = {
        found.sides[side].name: [_mark(one) for one in found.differences if one.side == side and one.metric in metrics]
        for side in range(1, len(found.sides))
    }
    title = "Difference of each metric" if family == "lists" else f"Difference of {family}"
    return forest(series, title=title, x_label=_axis(found, metrics[0]))


def _axis(found: Comparison, metric: str) -> str:
    name = found.sides[1].name if len(found.sides) == 2 else "each"
    better = "left" if smaller_is_better(metric) else "right"
    return f"{name} minus {found.reference.name}: {better} of zero is better"


def _mark(one: Difference) -> Mark:
    digits = decimals(one.over_users)
    outer = (one.over_seeds.low, one.over_seeds.high) if one.over_seeds else None
    told = f"{signed(one.over_users.value, digits)}  [{bounds(one.interval, digits)}]"
    clear = one.verdict in (BETTER, WORSE)
    return Mark(one.metric, one.over_users.value, one.over_users.low, one.over_users.high, told, outer, clear)


def _difference_table(found: Comparison, side: int) -> Markup:
    head = ["metric", found.reference.name, found.sides[side].name, "difference", f"{confidence(found)} interval"]
    head += ["with seed noise"] * found.has_seeds + ["relative", "p", "verdict"]
    rows = [_difference_row(found, one) for one in found.differences if one.side == side]
    return table(head, rows)


def _difference_row(found: Comparison, one: Difference) -> list[object]:
    digits, seeds = decimals(one.over_users), found.seed_values[one.metric]
    row: list[object] = [
        one.metric,
        Cell(with_spread(one.reference_value, seeds[0]), one.reference_value),
        Cell(with_spread(one.value, seeds[one.side]), one.value),
        Cell(signed(one.over_users.value, digits), one.over_users.value),
        Cell(bounds(one.over_users, digits), one.over_users.low),
    ]
    if found.has_seeds:
        row.append(Cell(bounds(one.over_seeds, digits), one.over_seeds.low) if one.over_seeds else None)
    relative = None if one.relative is None else Cell(percent(one.relative), one.relative)
    return [*row, relative, Cell(p_text(one.p_value), one.p_value), Cell(_badge(one.verdict), one.verdict)]


def _segments(found: Comparison) -> Markup:
    parts = [_segment_pictures(found, found.primary), _segment_table(found, found.primary)]
    others = [metric for metric in found.metrics if metric != found.primary]
    parts += [
        details(metric, join([_segment_pictures(found, metric), _segment_table(found, metric)])) for metric in others
    ]
    return join(parts)


def _segment_pictures(found: Comparison, metric: str) -> Markup:
    chosen = [one for one in found.segments if one.metric == metric]
    pictures = []
    for trait in dict.fromkeys(one.trait for one in chosen):
        series = {
            found.sides[side].name: [_segment_mark(one) for one in chosen if one.side == side and one.trait == trait]
            for side in range(1, len(found.sides))
        }
        pictures.append(forest(series, title=f"{metric} by {trait}", x_label=_axis(found, metric)))
    return _beside(pictures)


def _beside(pictures: Sequence[Markup]) -> Markup:
    """Pictures in rows of two; a single one keeps its size."""
    return grid(*pictures, wide=True) if len(pictures) > 1 else join(pictures)


def _segment_mark(one: Segment) -> Mark:
    digits = decimals(one.over_users)
    told = f"{signed(one.over_users.value, digits)}  [{bounds(one.over_users, digits)}]"
    clear = one.verdict in (BETTER, WORSE)
    return Mark(one.name, one.over_users.value, one.over_users.low, one.over_users.high, told, clear=clear)


def _segment_table(found: Comparison, metric: str) -> Markup:
    several = len(found.sides) > 2
    head = ["segment", found.unit, *(["run"] if several else []), found.reference.name]
    head += ["value" if several else found.sides[1].name, "difference", f"{confidence(found)} interval", "verdict"]
    rows = []
    for one in found.segments:
        if one.metric == metric:
            digits = decimals(one.over_users)
            name = [found.sides[one.side].name] if several else []
            rows.append([
                f"{one.trait} {one.name}", one.size, *name, one.reference_value, one.value,
                Cell(signed(one.over_users.value, digits), one.over_users.value),
                Cell(bounds(one.over_users, digits), one.over_users.low), Cell(_badge(one.verdict), one.verdict),
            ])  # fmt: skip
    return table(head, rows)


def _counted(found: Comparison) -> list[Difference]:
    return [one for one in found.differences if one.wins is not None]


def _wins(found: Comparison) -> Markup:
    counted = _counted(found)
    series = {
        found.sides[side].name: [
            Tally(one.metric, one.wins or 0, one.losses or 0) for one in counted if one.side == side
        ]
        for side in range(1, len(found.sides))
    }
    title = f"Lost and won against {found.reference.name}"
    x_label = f"{found.unit} that are worse off (left) and better off (right)"
    picture = tallies(series, title=title, x_label=x_label, unit=found.unit)
    several, users = len(found.sides) > 2, found.unit == "users"
    head = ["metric", *(["run"] if several else []), "won", "lost", "equal", *(["both zero"] if users else [])]
    rows = [
        [one.metric, *([found.sides[one.side].name] if several else []), one.wins, one.losses, one.ties,
         *([one.both_zero] if users else [])]
        for one in counted
    ]  # fmt: skip
    return grid(picture, table(head, rows), wide=True)


def _gains(found: Comparison) -> Markup:
    parts = []
    for side in range(1, len(found.sides)):
        name = found.sides[side].name
        for title, gains in ((f"Better with {name}", found.gains), (f"Worse with {name}", found.losses)):
            chosen = [gain for gain in gains if gain.side == side]
            if chosen:
                parts.append(details(f"{title}: {len(chosen)} users", _gain_table(found, chosen)))
    return join(parts)


def _gain_table(found: Comparison, gains: Sequence[Gain]) -> Markup:
    shown = found.metrics[:_SHOWN_METRICS]
    known = list(gains[0].known)
    head = ["user", *(name.replace("_", " ") for name in known), *shown]
    rows = [
        [
            str(gain.user),
            *(int(value) if value.is_integer() else value for value in gain.known.values()),
            *(Cell(f"{format_number(gain.values[name][0])} → {format_number(gain.values[name][1])}",
                   gain.values[name][1] - gain.values[name][0]) for name in shown),
        ]
        for gain in gains
    ]  # fmt: skip
    side = found.sides[gains[0].side]
    if side.baseline:
        return table(head, rows)
    words = ["python", "-m", "genrec.recommend", f"run={side.run.folder}", f"user={gains[0].user}"]
    command = shlex.join(words)
    return join([table(head, rows), paragraph(join(["What they are recommended: ", inline_code(command)]), quiet=True)])


def _settings(found: Comparison) -> Markup:
    if not found.settings:
        return paragraph("Nothing: the configs are the same.")
    head = ["key", *(side.name for side in found.sides)]
    rows = [[inline_code(name), *(_setting(value) for value in row)] for name, row in found.settings.items()]
    return table(head, rows, sortable=False)


def _setting(value: object) -> Cell:
    return Cell(setting_text(value), setting_text(value), "wrap")


def _costs(found: Comparison) -> Markup:
    rows = []
    for name, row in found.costs.items():
        label, texts = cost_texts(name, row)
        rows.append([label, *(Cell(text, value) for text, value in zip(texts, row, strict=True))])
    return table(["", *(side.name for side in found.sides)], rows, sortable=False)


def _how_to_read(found: Comparison) -> str:
    words = (
        f"Dots are differences, lines their {confidence(found)} intervals for other test users; a hollow dot cannot be "
        "told from zero."
    )
    return words + (" Thin lines allow for other seeds as well, and verdicts go by them." if found.has_seeds else "")


def _segments_note(found: Comparison) -> str:
    words = f"Quarters of the test {found.unit}; equal ones stay together, so quarters may be unequal or fewer."
    words += " Each is judged alone: among many, some look clear by chance."
    return words + (" Intervals are over users alone, without the seeds." if found.has_seeds else "")


def _wins_note(found: Comparison) -> str:
    if found.unit == "users":
        return "Users for whom neither run found anything are equal, and counted as both zero."
    return "Rows whose loss is smaller are won; of GAUC, users whose own AUC is larger."


def _method(found: Comparison) -> Markup:
    correction = (
        "p-values are corrected for the number of comparisons after Holm (1979), and verdicts go by them."
        if found.options.correction == "holm"
        else "Each metric is judged alone: of twenty comparisons without a difference one is expected to look clear at "
        "95 %; correction=holm allows for that."
    )
    seeds = (
        "Seed noise is Student's t with the standard error of the difference of the means over seeds (Welch)."
        if found.has_seeds
        else ""
    )
    bootstrap = (
        f"Paired bootstrap: {found.resamples:,} times, as many test {found.resampled} as there are were drawn with "
        "replacement, the same for all runs, and the metrics computed again. The interval holds the middle "
        f"{confidence(found)} of the differences (percentile method: Efron and Tibshirani 1993; paired: Koehn 2004); p "
        "is twice the smaller share of differences on one side of zero."
    )
    return join([paragraph(bootstrap), paragraph(f"{correction} {seeds}".strip())])
