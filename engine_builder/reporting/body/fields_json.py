"""The JSON object of a dataclass, some of whose fields are left out where they do not apply."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from calibration.codec import json_from_value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def fields_json(value: DataclassInstance, *left_out: str) -> dict[str, object]:
    """Return the JSON of each field by its name.

    Args:
        value: Its fields have a JSON form.
        left_out: Names of fields that have no key where they are None; ``value_from_json`` then takes their defaults.
    """
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: json_from_value(item) for name, item in found.items() if not (item is None and name in left_out)}
