"""The form in which events travel, server-sent events: written by the server, read by its clients.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.jobs.live.events import Event  # loads the database library, which clients do without

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class ToldEvent:
    """An event as a client sees it; of a newer server its kind may be one that we do not know."""

    number: int
    kind: str
    data: Mapping[str, object]


def text_from_event(event: Event) -> bytes:
    """Return the event in the form in which it is sent."""
    data = json.dumps({**event.data, "at": round(event.at, 3)}, separators=(",", ":"))
    return f"id: {event.number}\nevent: {event.kind.value}\ndata: {data}\n\n".encode()


def events_from_lines(lines: Iterable[str]) -> Iterator[ToldEvent]:
    """Give the events in lines without their ends; comments, and what is no event of ours, are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        told = _event(fields)
        fields = {}
        if told is not None:
            yield told


def _event(fields: Mapping[str, str]) -> ToldEvent | None:
    try:
        data = json.loads(fields["data"])
        number = int(fields["id"])
    except (KeyError, ValueError, RecursionError):
        return None
    return ToldEvent(number, fields.get("event", "message"), data) if isinstance(data, dict) else None
