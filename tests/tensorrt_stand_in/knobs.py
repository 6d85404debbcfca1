"""The stand-in's knobs: their JSON in the form of TensorRT 11.1 and later, and what a build route does to an engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.tensorrt_stand_in.orders import Effect, KnobOrder


def knobs_text(knobs: Sequence[KnobOrder]) -> str:
    """Return the text of ``all_build_routes``; empty without knobs."""
    if not knobs:
        return ""
    options = [
        {
            "option": knob.name,
            "allowed_values": f"{knob.name}=[{'|'.join(knob.values)}]",
            "default_value": next(iter(knob.values)),
            "help": "for tests",
        }
        for knob in knobs
    ]
    return json.dumps({"tuner_version": "2.17.83", "tuner_options": options})


def effects_of(route: str, knobs: Sequence[KnobOrder]) -> list[Effect] | None:
    """Return what each token of a route does; None where one names what there is not."""
    known = {knob.name: knob.values for knob in knobs}
    tokens = [token.partition("=") for token in route.split()]
    if any(value not in known.get(name, {}) for name, _, value in tokens):
        return None
    return [known[name][value] for name, _, value in tokens]
