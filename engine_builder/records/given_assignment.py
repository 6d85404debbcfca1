"""The user's own assignment: what it says of a model's layers, whether they can have it, and what an engine made of it.

1. Every layer has to be named, or ``*`` stands for those that are not: an assignment of another model is seen at once.
2. A float type, the target's or a wider one, means that the layer is not quantized; which float type it then has is the target's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from engine_builder.config.schema import nearest
from engine_builder.records.calibrated import EligiblePrecisions

ALL_OTHERS = "*"
_SHOWN = 5


def layers_of(given: Mapping[str, Precision], layers: Sequence[str]) -> dict[str, Precision]:
    """Return the precision of every layer.

    Args:
        given: As the user wrote it.
        layers: Names of the model's layers.

    Raises:
        InvalidConfigError: It names a layer that the model does not have, or none for a layer (rule 1).
    """
    known = set(layers)
    for name in given:
        if name not in known and name != ALL_OTHERS:
            near = nearest(name, layers)
            raise InvalidConfigError(
                f"assignment: the model has no layer {name!r}; its layers are {_some(layers)}",
                fix=f"Write {near!r}." if near is not None else "Use the names in a job's assignment.json: those of the ONNX nodes.",
            )
    missing = [name for name in layers if name not in given]
    if missing and ALL_OTHERS not in given:
        raise InvalidConfigError(
            f"assignment: found no precision for {_some(missing)}, of {len(layers)} layers",
            fix=f'Name every layer, or add "{ALL_OTHERS}" for all that are not named.',
        )
    return {name: given.get(name) or given[ALL_OTHERS] for name in layers}


def quantized_of(given: Mapping[str, Precision], layers: Sequence[str], eligible: EligiblePrecisions) -> dict[str, Precision]:
    """Return the layers that are quantized (rule 2).

    Args:
        given: As the user wrote it.
        layers: Names of the model's layers.
        eligible: What each can take on the target.

    Raises:
        InvalidConfigError: As for ``layers_of``; or a layer that is named cannot take its precision. Under ``*`` it stays in floats.
    """
    quantized = {}
    for name, precision in layers_of(given, layers).items():
        if not precision.is_quantized:
            continue
        can = eligible.get(name, ())
        if precision in can:
            quantized[name] = precision
        elif name in given:
            raise InvalidConfigError(
                f"assignment: layer {name!r} asks for {precision}, which it cannot take on this target: "
                + (f"only {', '.join(can)}" if can else "it stays in floats"),
                fix="Write one of these, or the target's float type." if can else "Write the target's float type for it.",
            )
    return quantized


def differences(given: Mapping[str, Precision], engine: Mapping[str, Precision]) -> tuple[str, ...]:
    """Return a note on the layers whose precision in an engine is another than the assignment's; none where all are as given.

    Args:
        given: As the user wrote it.
        engine: The precision of every layer of the engine.
    """
    asked = layers_of(given, tuple(engine))
    others = [f"{name} ({engine[name]}, not {precision})" for name, precision in asked.items() if engine[name] is not precision]
    if not others:
        return ()
    return (f"assignment: {len(others)} of {len(asked)} layers are not as given, since the target cannot have them so: {_some(others)}",)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
