"""Settings: inputs that have one value for the whole job, such as a sample rate or a threshold beside the data.

An input is a setting where

1. its array has no axes, or a single value in all, as an input of one value takes it;
2. it takes one value and its array has the same one for every sample;
3. it counts no samples beside an input that does, with an axis of open size, and its array is the same for every sample;
4. the model fixes all of its sizes, its array has just these and not the number of samples of the others.

An array without axes for an input that counts samples, and holds one value of each, is that value for every sample: no setting, since the
model may be called with others.

A model is prepared with its settings as constants, so that what hangs on them (a branch of an If, a length) is computed once. The input
stays in the graph though nothing reads it: whoever calls the model need not change anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.data.sample_axes import Array
from calibration.errors import InvalidCalibrationSetError
from calibration.onnx_model.model_io import TensorSpec

MOST_SHOWN = 6  # values of a setting that a note shows


def settings_from(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the value of every input that is a setting, in the shape of the model's input, by the rules above; not cast.

    Args:
        arrays: What the user gave for each input.
        specs: The model's inputs.
    """
    counts = [len(arrays[spec.name]) for spec in specs if arrays[spec.name].ndim and not _takes_one_value(spec)]
    samples = max(counts, default=0)
    has_open = any(any(not isinstance(dim, int) for dim in spec.shape) for spec in specs)
    found = {}
    for spec in specs:
        array = arrays[spec.name]
        shape = tuple(dim for dim in spec.shape if isinstance(dim, int))
        if not spec.has_rank or len(shape) < len(spec.shape) or not array.size:
            continue
        if _takes_one_value(spec):
            is_same = bool((array == array.reshape(-1)[0]).all())
            is_sampled = array.shape[:1] == (samples,) and array.size == samples
            if array.size == 1 or (is_same and is_sampled and (not shape or has_open)):  # rules 1 and 2
                found[spec.name] = array.reshape(-1)[:1].reshape(shape)
        elif array.shape == (samples, *shape) and has_open and bool((array == array[0]).all()):  # rule 3
            found[spec.name] = np.asarray(array[0])
        elif array.shape == shape and len(array) != samples:  # rule 4
            found[spec.name] = array
    return found if len(found) < len(specs) else {}


def repeated(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the arrays with every one without axes repeated for each sample, where the model's input has one value of each sample.

    Args:
        arrays: What the user gave for each input.
        specs: The model's inputs that are no settings.
    """
    samples = max((len(arrays[spec.name]) for spec in specs if arrays[spec.name].ndim), default=0)
    found = dict(arrays)
    for spec in specs:
        if arrays[spec.name].ndim == 0 and spec.shape and all(dim == 1 for dim in spec.shape[1:]):
            found[spec.name] = np.broadcast_to(arrays[spec.name], (samples, *(1 for _ in spec.shape[1:])))
    return found


def make_constant(model: onnx.ModelProto, settings: Mapping[str, Array]) -> None:
    """Let the nodes of ``model`` read constants in the place of these inputs, which stay; in place."""
    graph = model.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {item.name for item in graph.initializer}
    renamed = {}
    for name, value in settings.items():
        constant = f"{name}_setting"
        while constant in taken:
            constant += "_"
        taken.add(constant)
        renamed[name] = constant
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), constant))
    _rename_reads(graph, renamed)


def check_same_settings(one: Mapping[str, Array], other: Mapping[str, Array]) -> None:
    """Refuse calibration and validation sets whose settings differ.

    Raises:
        InvalidCalibrationSetError: One has a setting that the other has not, or another value of it.
    """
    for name in (*one, *other):
        if name not in one or name not in other:
            where, rest = ("calibration", "validation") if name in one else ("validation", "calibration")
            raise InvalidCalibrationSetError(
                f"array '{name}': one value for the whole job found in the {where} set, another for each sample in the {rest} set",
                fix="Give the same single value, an array without axes, in both sets, or values of every sample in both.",
            )
        if not np.array_equal(one[name], other[name], equal_nan=True):
            raise InvalidCalibrationSetError(
                f"array '{name}': {_shown(one[name])} found in the calibration set and {_shown(other[name])} in the validation set, "
                "the same value expected: it is a setting of the whole job",
                fix="Give the value that the model is to be used with in both sets.",
            )


def note_of(name: str, value: Array) -> str:
    """Return for the user how a setting is treated."""
    return (
        f"input '{name}' is {_shown(value)} for the whole job, so engines are built with that value as a constant; "
        "they keep the input, but do not read it (only your own file, where it is kept as the engine, does): "
        "for another value optimize the model again"
    )


def _shown(value: Array) -> str:
    values = value.reshape(-1)[:MOST_SHOWN].tolist()
    return str(values[0]) if value.size == 1 else f"[{', '.join(map(str, values))}{', ...' if value.size > MOST_SHOWN else ''}]"


def _takes_one_value(spec: TensorSpec) -> bool:
    return spec.has_rank and spec.shape in ((), (1,))


def _rename_reads(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]
        for attribute in node.attribute:
            for inner in (attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs):
                _rename_reads(inner, renamed)
                for value in inner.output:  # a branch that gives the input itself
                    value.name = renamed.get(value.name, value.name)
