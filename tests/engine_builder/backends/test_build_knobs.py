"""The knobs of TensorRT's builder, read from its JSON."""

from __future__ import annotations

import json

import pytest

from engine_builder.backends.build_knobs import knobs_from_json
from engine_builder.records.build_route import Knob


def option(name: str, allowed: str, default: str) -> dict[str, str]:
    return {"option": name, "allowed_values": f"{name}={allowed}", "default_value": default, "help": "what it does"}


def text(*options: object) -> str:
    return json.dumps({"tuner_version": "2.17.83", "tuner_options": options})


def test_knobs_with_a_closed_set_of_values_are_read_in_their_order() -> None:
    given = text(option("-kgen:codegen:cuda_tile", "[0|1|2|3]", "1"), option("-slice_fusion", "[on | off]", "on"))
    assert knobs_from_json(given) == (
        Knob("-kgen:codegen:cuda_tile", "1", ("0", "1", "2", "3")),
        Knob("-slice_fusion", "on", ("on", "off")),
    )


@pytest.mark.parametrize(
    "unusable",
    [
        option("-size", "int32_t", "4"),
        option("-range", "[0|1|...|9]", "0"),
        option("-one", "[on]", "on"),
        option("-other", "[a|b]", "c"),
        option("-two words", "[a|b]", "a"),
        {"option": 3, "allowed_values": "-x=[a|b]", "default_value": "a"},
        {"option": "-x"},
        "no object",
    ],
)
def test_what_is_no_closed_set_is_left_out(unusable: object) -> None:
    assert knobs_from_json(text(unusable, option("-a", "[on|off]", "on"))) == (Knob("-a", "on", ("on", "off")),)


@pytest.mark.parametrize("given", ["", " ", "no json", "[]", "{}", '{"tuner_options": 3}', '"text"'])
def test_what_tells_no_knobs_has_none(given: str) -> None:
    assert knobs_from_json(given) == ()


def test_a_name_without_its_dash_gets_one() -> None:
    assert knobs_from_json(text(option("a", "[on|off]", "on")))[0].name == "-a"
