from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.jobs.live.event_text import ToldEvent, events_from_lines, text_from_event
from service.jobs.live.events import Event, EventKind

DATA = st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(EventKind), DATA), max_size=4))
def test_what_is_sent_is_what_is_read(told: list[tuple[EventKind, dict[str, object]]]) -> None:
    events = [Event(number, 12.5, kind, data) for number, (kind, data) in enumerate(told, 1)]
    text = b"retry: 2000\n\n" + b": a comment\n\n".join(map(text_from_event, events))
    assert list(events_from_lines(text.decode().split("\n"))) == [
        ToldEvent(event.number, event.kind.value, {**event.data, "at": 12.5}) for event in events
    ]


@given(st.lists(st.text(alphabet='id:event data{}[]1\\"x '), max_size=12))
def test_what_is_no_event_is_left_out(lines: list[str]) -> None:
    for told in events_from_lines(lines):
        assert isinstance(told.data, dict)


def test_events_cut_off_in_the_middle_are_left_out() -> None:
    assert list(events_from_lines(["id: 1", "event: end", 'data: {"a":1}'])) == []
    assert list(events_from_lines(["id: 1", "event: end", "data: 7", ""])) == []
    assert list(events_from_lines(["id: x", "event: end", "data: {}", ""])) == []
