"""Explanations for people: a table in the terminal, and a picture of the paths from a user to an item."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich import box
from rich.markup import escape as plain
from rich.table import Table

from genrec.data.dataset import Dataset
from genrec.explanations import Evidence, Explanation, Link
from genrec.graph import INTERACTS, ITEM, USER, TypedGraph

_LINKS_SHOWN, _NAMES = 3, 28
_WIDTH, _ROW, _TOP, _MARGIN = 980, 46, 66, 26
_COLUMNS = (0.04, 0.33, 0.66, 0.97)  # of the width: user, neighbours, what they share with the item, the item
_INK, _PALE, _LINE, _TIE = "#333333", "#777777", "#1b6ca8", "#b58b2a"


class Names:
    """What the nodes of a graph are called."""

    def __init__(self, dataset: Dataset, graph: TypedGraph) -> None:
        self.titles = dataset.titles
        self.users = dataset.log.user_ids
        self.graph = graph

    def __call__(self, kind: str, node: int) -> str:
        if kind == ITEM:
            return self.titles[node]
        if kind == USER:
            return f"user {self.users[node]}"
        return self.graph.names(kind)[node]


def explanation_table(explanation: Explanation, names: Names) -> Table:
    """One row per neighbour that speaks for the item: who, how much of the score, and the ties to the item."""
    table = Table(
        title=plain(f"Why {names(ITEM, explanation.item)}? (score {explanation.score:.3f})"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("because", overflow="fold")
    table.add_column("share", justify="right")
    table.add_column("tied to it by", overflow="fold")
    for evidence in explanation.evidence:
        table.add_row(
            plain(f"{_verb(evidence)} {names(evidence.kind, evidence.node)}"),
            f"{explanation.share(evidence):.0%}",
            plain(ties(evidence.links, names, of=evidence.kind)),
        )
    return table


def _verb(evidence: Evidence) -> str:
    if evidence.relation == INTERACTS:
        return "you chose"
    return {"friend_of": "your friend"}.get(evidence.relation, f"{evidence.relation.replace('_', ' ')}:")


def ties(links: Sequence[Link], names: Names, *, of: str) -> str:
    """The strongest nodes of each further type by name, and of users how many; ``of`` is the neighbour's own type."""
    found = []
    if any(link.kind == ITEM for link in links):
        found.append("chose it too" if of == USER else "directly")
    kinds = dict.fromkeys(link.kind for link in links if link.kind not in (USER, ITEM))
    for kind in kinds:
        shared = [names(kind, link.node) for link in links if link.kind == kind]
        more = f" and {len(shared) - _LINKS_SHOWN} more" if len(shared) > _LINKS_SHOWN else ""
        found.append(f"{kind} {', '.join(shared[:_LINKS_SHOWN])}{more}")
    users = sum(link.kind == USER for link in links)
    if users:
        found.append(f"{users} {'user' if users == 1 else 'users'} of both")
    return "; ".join(found)


def draw(explanation: Explanation, names: Names) -> str:
    """The paths as SVG: wider lines carry more of the score, or more attention."""
    who = names(USER, explanation.user)
    shown = [each for each in explanation.evidence if explanation.share(each) > 0]
    ends: dict[tuple[str, int], str] = {}
    chosen = {}
    for place, evidence in enumerate(shown):
        chosen[place] = [link for link in evidence.links if link.kind != ITEM][:2]
        ends.update({(link.kind, link.node): names(link.kind, link.node) for link in chosen[place]})
    rows = max(len(shown), len(ends), 1)
    height = _TOP + rows * _ROW + _MARGIN
    middle = _TOP + rows * _ROW / 2
    x = [share * _WIDTH for share in _COLUMNS]
    y_evidence = _spread(len(shown), rows)
    y_end = dict(zip(ends, _spread(len(ends), rows), strict=True))
    strongest = max((link.weight for links in chosen.values() for link in links), default=1.0)
    last = x[3] - _length(names(ITEM, explanation.item)) - 8
    lines, texts = [], []
    for place, evidence in enumerate(shown):
        y, share = y_evidence[place], explanation.share(evidence)
        lines.append(_line(x[0] - 24 + _length(who) + 8, middle, x[1] - 6, y, _LINE, 1 + 14 * share))
        texts.append(_text(x[1], y, names(evidence.kind, evidence.node), anchor="start", note=f"{share:.0%}"))
        begin = x[1] + _length(names(evidence.kind, evidence.node)) + 8
        if any(link.kind == ITEM for link in evidence.links):
            lines.append(_line(begin, y, last, middle, _TIE, 2.0))
        for link in chosen[place]:
            end = y_end[link.kind, link.node]
            width = 1 + 4 * link.weight / strongest
            lines.append(_line(begin, y, x[2] - 6, end, _TIE, width))
            lines.append(_line(x[2] + _length(names(link.kind, link.node)) + 8, end, last, middle, _TIE, width))
    for (kind, _), name in ends.items():
        texts.append(_text(x[2], y_end[kind, _], name, anchor="start", note=kind if kind != USER else ""))
    title = f"Why {names(ITEM, explanation.item)} for {who}? (score {explanation.score:.3f})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="14" y="24" font-size="14" fill="{_INK}">{escape(title)}</text>',
        f'<text x="14" y="42" font-size="11" fill="{_PALE}">blue: the share of the score that a neighbour brings; '
        "ochre: attention to what it has in common with the item</text>",
        *lines,
        _text(x[0] - 24, middle, who, anchor="start"),
        *texts,
        _text(x[3], middle, names(ITEM, explanation.item), anchor="end"),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _spread(count: int, rows: int) -> list[float]:
    """The heights of ``count`` nodes, evenly over the picture."""
    step = rows * _ROW / max(count, 1)
    return [_TOP + step * (place + 0.5) for place in range(count)]


def _short(text: str) -> str:
    return text if len(text) <= _NAMES else text[: _NAMES - 3] + "..."


def _length(text: str) -> float:
    """About how wide a name is drawn."""
    return 6.6 * len(_short(text))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    bend = (x2 - x1) / 2
    path = f"M{x1:.1f},{y1:.1f} C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-opacity="0.55"/>'


def _text(x: float, y: float, text: str, *, anchor: str, note: str = "") -> str:
    short = _short(text)
    shift = 0.0 if anchor == "start" else -_length(text)
    back = f'<rect x="{x + shift - 3:.1f}" y="{y - 12:.1f}" width="{_length(text) + 6:.1f}" height="17" fill="white"/>'
    below = f'<text x="{x:.1f}" y="{y + 17:.1f}" font-size="10" fill="{_PALE}">{escape(note)}</text>' if note else ""
    label = f'<text x="{x:.1f}" y="{y + 1:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(short)}</text>'
    return back + label + below
