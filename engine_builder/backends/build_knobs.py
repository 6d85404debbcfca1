"""Reads the knobs of TensorRT's builder from the JSON of ``IBuilderConfig.all_build_routes``.

The form is that which NVIDIA's trtexec reads (NVIDIA/TensorRT, samples/common/sampleTuning.cpp): ``tuner_options``, each with ``option``,
``allowed_values`` as ``-name=[a|b|c]`` and ``default_value``. A range (``...``) or a type in the place of the values is no closed set.
"""

from __future__ import annotations

import json
import logging
import re

from calibration.codec import as_object
from engine_builder.records.build_route import Knob

logger = logging.getLogger(__name__)

_VALUES = re.compile(r"\[([^\]]*)\]")
_TOKEN = re.compile(r"[^\s=|\[\]]+")  # what a route can say: no space, no bracket


def knobs_from_json(text: str) -> tuple[Knob, ...]:
    """Return the knobs with a closed set of at least two values, in the builder's order; none of an empty text.

    What cannot be read is left out: knobs only make engines faster, and no build fails for them.

    Args:
        text: Of ``all_build_routes``.
    """
    if not text.strip():
        return ()
    try:
        options = as_object(json.loads(text))["tuner_options"]
    except (ValueError, TypeError, KeyError) as exc:
        logger.warning("the builder's knobs cannot be read: %s", exc)
        return ()
    found = map(_knob, options if isinstance(options, list) else [])
    return tuple({knob.name: knob for knob in found if knob is not None}.values())


def _knob(option: object) -> Knob | None:
    if not isinstance(option, dict):
        return None
    name, allowed, default = (option.get(key) for key in ("option", "allowed_values", "default_value"))
    closed = _VALUES.search(allowed) if isinstance(allowed, str) else None
    if not isinstance(name, str) or not isinstance(default, str) or closed is None or "..." in closed[1]:
        return None
    values = tuple(dict.fromkeys(filter(None, map(str.strip, closed[1].split("|")))))
    name = name if name.startswith("-") else f"-{name}"
    is_sound = len(values) > 1 and default in values and all(map(_TOKEN.fullmatch, (name, *values)))
    return Knob(name, default, values) if is_sound else None
