"""A few test users: what they had, what was held out, and what the model recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrec.records import RunRecord
from genrec.report.html import Markup, Section, badge, details, element, grid, join

_SHOWN_HISTORY = 6
_SHOWN_USERS = 6


def samples_section(record: RunRecord) -> Section | None:
    """A card per user; None where there are none."""
    if not record.samples:
        return None
    hits = sum(any(item.get("hit") for item in (user.get("recommended") or [])) for user in record.samples)
    note = (
        f"Test users drawn at random; for {hits} of {len(record.samples)} something held out is among the items shown. "
        "Histories end with their latest item."
    )
    cards = [_card(user) for user in record.samples]
    rest = cards[_SHOWN_USERS:]
    folded = details(f"{len(rest)} more", grid(*rest)) if rest else None
    return Section("Recommendations", join([grid(*cards[:_SHOWN_USERS]), folded]), note=note)


def _card(user: Mapping[str, Any]) -> Markup:
    history, recommended = list(user.get("history") or []), list(user.get("recommended") or [])
    rank = next((place for place, item in enumerate(recommended, start=1) if item.get("hit")), None)
    length = user.get("history_length") or len(history)
    heading = element("h3", f"User {user.get('user_id')}", badge(f"hit at {rank}", "good") if rank else badge("miss"))
    return element(
        "div",
        heading,
        element("h4", f"History, {length} items" if length > _SHOWN_HISTORY else "History"),
        element("ul", *(_item(item) for item in history[-_SHOWN_HISTORY:])),
        element("h4", "Held out"),
        element("ul", *(_item(item) for item in (user.get("targets") or []))),
        element("h4", "Recommended"),
        element("ol", *_ranked(recommended)),
        class_="card",
    )


def _ranked(items: Sequence[Mapping[str, Any]]) -> list[Markup]:
    return [_item(item, place) for place, item in enumerate(items, start=1)]


def _item(item: Mapping[str, Any], place: int | None = None) -> Markup:
    title = item.get("title")
    shown = f"{title}" if title not in (None, "") else f"item {item.get('item_id')}"
    score = item.get("score")
    return element(
        "li",
        element("span", str(place), class_="place") if place else None,
        element("span", shown, class_="name", title=f"item {item.get('item_id')}"),
        element("span", f"{score:.2f}", class_="score") if isinstance(score, float) else None,
        class_="hit" if item.get("hit") else None,
    )
