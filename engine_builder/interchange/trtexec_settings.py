"""TensorRT 10 recipes read into this project's terms: ``trtexec --layerPrecisions`` and INT8 calibration caches.

TensorRT 11 has neither per-layer precision flags nor calibrators: precision lies in the graph. What a user settled for TensorRT 10 is kept
as a precision for each layer and a range for each tensor.

Layer precisions, as trtexec reads them (NVIDIA/TensorRT, samples/common: sampleOptions.cpp, sampleUtils.cpp):

1. ``NAME:PRECISION`` separated by commas; what follows the last colon is the precision, and a name may stand in single quotes. Of two
   entries with one name the later counts.
2. The first ``*`` of a name stands for any text, also for none; every further one for itself.
3. A layer takes the entry of its exact name, else one whose pattern fits. Where several fit, trtexec takes whichever its hash table holds
   first; here it is the one with the most characters besides the ``*``, and the later of two with equally many.
4. A layer that no entry fits is the builder's choice in TensorRT 10; here it takes the default.

Calibration caches: the line ``TRT-VERSION-CALIBRATOR``, then ``TENSOR: HEX``, the bits of a float32 scale, most significant first and
leading zeros perhaps left out. INT8 values lie in -127..127, so the tensor's range is +-127 scale. A scale of 0 is no range: the
calibrator saw nothing but zeros, or never that tensor.
"""

from __future__ import annotations

import difflib
import math
import re
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

from calibration.errors import InvalidConfigError
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision
from engine_builder.records.assignment import PrecisionAssignment

LEVELS = 127


def assignment_from_layer_precisions(
    spec: str, layers: Sequence[Layer], *, nodes: Collection[str] = (), default: Precision = Precision.FP16
) -> PrecisionAssignment:
    """Return the precision of each layer by rules 1 to 4.

    Args:
        spec: What was given to ``trtexec --layerPrecisions``.
        layers: The model's layers.
        nodes: Names of all its nodes: an entry for a node that is no layer, such as a Softmax, is passed over.
        default: What a layer takes that no entry fits.

    Raises:
        InvalidConfigError: The spec cannot be read, or an entry fits neither a layer nor a node.
    """
    entries = _entries(spec)
    names = [layer.name for layer in layers]
    for pattern in entries:
        if not any(_fits(pattern, name) for name in (*names, *nodes)):
            raise InvalidConfigError(
                f"layer precisions: no layer or node is called {pattern!r}; the layers are {_some(names)}",
                fix="Use the node names of the ONNX file; name nodes that have none before you export or optimize.",
            )
    return PrecisionAssignment(tuple((name, _precision(entries, name) or default) for name in names))


def entries_without_layer(spec: str, layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the names and patterns of a spec that fit no layer, in its order.

    Raises:
        InvalidConfigError: The spec cannot be read.
    """
    return tuple(pattern for pattern in _entries(spec) if not any(_fits(pattern, layer.name) for layer in layers))


def ranges_from_calibration_cache(text: str) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each tensor of a TensorRT calibration cache that has a range.

    Args:
        text: The cache file.

    Raises:
        InvalidConfigError: It is no calibration cache, or a line of it is damaged.
    """
    lines = text.splitlines()
    if not lines or not _HEADER.fullmatch(lines[0].strip()):
        found = repr(lines[0][:60]) if lines else "an empty file"
        raise InvalidConfigError(
            f"calibration cache: found {found} as the first line, expected one like 'TRT-8601-EntropyCalibration2'",
            fix="Give the file that IInt8Calibrator.write_calibration_cache or trtexec --calib wrote.",
        )
    ranges = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            name, scale = _scale(line, number)
            if scale > 0.0:
                ranges[name] = (-LEVELS * scale, LEVELS * scale)
    return ranges


def assignment_from_ranges(
    layers: Sequence[Layer], ranges: Mapping[str, tuple[float, float]], *, default: Precision = Precision.FP16
) -> PrecisionAssignment:
    """Return INT8 for each layer whose inputs all have a range, and the default for the others: what TensorRT 10 may do with a cache.

    Args:
        layers: The model's layers.
        ranges: Range of each calibrated tensor.
        default: What the other layers take.
    """
    missing = set(layers_without_range((layer.name for layer in layers), layers, ranges))
    return PrecisionAssignment(tuple((layer.name, default if layer.name in missing else Precision.INT8) for layer in layers))


def layers_without_range(names: Iterable[str], layers: Sequence[Layer], ranges: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return those of ``names`` that have an input without a range, in the order of the layers."""
    asked = set(names)
    return tuple(layer.name for layer in layers if layer.name in asked and not all(tensor in ranges for tensor in layer.inputs))


def _entries(spec: str) -> dict[str, Precision]:
    """Return precision by name or pattern; the later of two equal ones counts, and takes the later place (rules 1 and 3)."""
    entries: dict[str, Precision] = {}
    for part in spec.split(","):
        name, colon, word = (text.strip() for text in part.rpartition(":"))
        quoted = len(name) > 1 and name[0] == name[-1] == "'"
        name = name[1:-1] if quoted else name
        if not colon or not name:
            raise InvalidConfigError(
                f"layer precisions: found {part!r}, expected NAME:PRECISION", fix="Write for example 'conv1:fp16,*:int8'."
            )
        if word not in _WORDS:
            raise InvalidConfigError(
                f"layer precisions: {name!r} has the precision {word!r}, expected one of {', '.join(_WORDS)}",
                fix=_word_fix(word),
            )
        entries.pop(name, None)
        entries[name] = Precision(word)
    return entries


def _word_fix(word: str) -> str:
    if word in _TRTEXEC_WORDS:
        return "Leave out layers that compute with integers: they have no precision of their own here."
    near = difflib.get_close_matches(word.lower(), _WORDS, n=1)
    return f"Write {near[0]!r}." if near else "Write one of these."


def _precision(entries: Mapping[str, Precision], name: str) -> Precision | None:
    """Return the precision of a layer by rule 3, None where no entry fits."""
    if name in entries:
        return entries[name]
    fitting = [pattern for pattern in entries if _fits(pattern, name)]
    return entries[max(reversed(fitting), key=len)] if fitting else None


def _fits(pattern: str, name: str) -> bool:
    before, star, after = pattern.partition("*")  # rule 2
    if not star:
        return pattern == name
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def _scale(line: str, number: int) -> tuple[str, float]:
    name, colon, digits = (text.strip() for text in line.rpartition(":"))
    scale = struct.unpack(">f", bytes.fromhex(digits.zfill(_DIGITS)))[0] if _HEX.fullmatch(digits) else math.nan
    if not colon or not name or not math.isfinite(scale) or scale < 0.0:
        raise InvalidConfigError(
            f"calibration cache, line {number}: found {line[:80]!r}, expected 'TENSOR: ' and up to {_DIGITS} hex digits of a scale >= 0",
            fix="The file is damaged: copy it again, or calibrate again.",
        )
    return name, float(scale)


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


_HEADER = re.compile(r"TRT-\d+-\w+")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_DIGITS = 8
_WORDS = tuple(precision.value for precision in Precision if not precision.rounds_in_kernel)
_TRTEXEC_WORDS = ("int32", "int64", "uint8", "bool")  # types that trtexec takes and that are no precision here
_NAMED = 8
