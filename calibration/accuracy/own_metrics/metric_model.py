"""A user's own accuracy metric as an ONNX graph: model outputs in, one score per sample out. No code of the user's is ever executed.

1. Each input of the graph is fed by its name: ``<output>`` is an output of the engine that is scored, ``labels`` are the labels of the
   validation set, ``reference_<output>`` is an output of the float model. An output of the model that is called so itself comes first.
2. The graph has one output, floating-point, (samples,) or (samples, 1): a score from 0 to 1 for each sample, 1 is perfect.
3. A sample's score depends on that sample alone. The first axis of every input counts samples and has no fixed size.
4. A sample whose outputs are not finite scores 0 and the graph does not see it, so a broken engine can never look good.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf publishes no types
from numpy.typing import NDArray

from calibration.accuracy.own_metrics.sample_scores import check_scores, checked_scores, sound_samples, with_reference
from calibration.errors import CalibrationError, InvalidMetricError, InvalidModelError
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.onnx_model.external_data import all_tensors
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs, read_model

BATCH = 256  # samples in one call
LABELS = "labels"
REFERENCE_PREFIX = "reference_"


class Source(enum.StrEnum):
    """Where the values of an input of the graph come from."""

    OUTPUT = "output"
    REFERENCE = "reference"
    LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Binding:
    """What one input of the graph is fed with."""

    spec: TensorSpec  # the input
    source: Source
    output: str | None  # of the model; None for labels


class MetricModel:
    """An open metric. Read-only."""

    def __init__(self, path: Path) -> None:
        """Read, check and open the graph.

        Args:
            path: An .onnx file without external data.

        Raises:
            InvalidMetricError: It is no ONNX model, holds what is not allowed, or cannot be run.
        """
        model = _read(path)
        self._specs = input_specs(model)
        for spec in self._specs:
            if spec.shape and isinstance(spec.shape[0], int):
                raise InvalidMetricError(
                    f"metric model: input '{spec.name}' takes exactly {spec.shape[0]} samples, expected any number on its first axis",
                    fix="Export it with a dynamic first axis (for PyTorch: dynamic_axes or dynamic_shapes).",
                )
        self._check_output(output_specs(model))
        try:
            self._piece = Piece(model)
        except CalibrationError as error:
            raise InvalidMetricError(f"metric model: {error.detail}", fix="Use operators that onnxruntime runs on the CPU.") from error

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what is fed."""
        return tuple(spec.name for spec in self._specs)

    def read(self, outputs: Collection[str], *, is_labelled: bool) -> frozenset[str]:
        """Return the outputs that it reads; arguments and errors as of ``bindings``."""
        found = self.bindings(outputs, is_labelled=is_labelled)
        return frozenset(item.output for item in found if item.output is not None)

    def bindings(self, outputs: Collection[str], *, is_labelled: bool) -> tuple[Binding, ...]:
        """Return what each input is fed with, by rule 1.

        Args:
            outputs: Names of the model's outputs.
            is_labelled: Whether the validation set has labels.

        Raises:
            InvalidMetricError: An input is none of these, labels are missing, or no input is an output of the engine.
        """
        found = tuple(_binding(spec, outputs) for spec in self._specs)
        if any(item.source is Source.LABELS for item in found) and not is_labelled:
            raise InvalidMetricError(
                f"metric model: input '{LABELS}' found, but the validation set has no labels",
                fix=f"Add an array `{LABELS}` with one entry per sample to the validation set.",
            )
        if not any(item.source is Source.OUTPUT for item in found):
            raise InvalidMetricError(
                f"metric model: inputs {', '.join(map(repr, self.inputs))} found, expected at least one output of the model: "
                f"{', '.join(map(repr, outputs))}",
                fix="Name an input after the output that it scores; without one every engine has the same score.",
            )
        return found

    def check(self, outputs: Mapping[str, Array], labels: Array | None) -> None:
        """Refuse a graph that does not fit the outputs, or whose scores are not a sample's own.

        Args:
            outputs: The float model's, by name, each (samples, ...).
            labels: (samples, ...), if there are any.

        Raises:
            InvalidMetricError: An input has another type or shape; a score is out of 0..1, or changes with the other samples of its call.
        """
        for binding in self.bindings(outputs, is_labelled=labels is not None):
            _check_fits(binding, labels if binding.output is None else outputs[binding.output])
        check_scores(
            self.score,
            outputs,
            labels,
            "metric model",
            "Reduce over the axes of a sample only, never over the first axis, and use no random operators.",
        )

    def score(self, outputs: Mapping[str, Array], reference: Mapping[str, Array], labels: Array | None) -> NDArray[np.float64]:
        """Return the score of each sample, (samples,), from 0 to 1.

        Args:
            outputs: Of the engine, by name, each (samples, ...).
            reference: The float model's, without NaN. A sample with NaN, or with infinities that are not there too, scores 0.
            labels: (samples, ...), if there are any.

        Raises:
            InvalidMetricError: The graph fails, or does not give every sample a score from 0 to 1.
        """
        bindings = self.bindings(outputs, is_labelled=labels is not None)
        samples = len(next(iter(outputs.values())))
        is_known = np.ones(samples, dtype=np.bool_)
        feeds: dict[str, Array] = {}
        for item in bindings:
            if item.output is None:
                assert labels is not None  # bindings() refused this
                values = labels
            elif item.source is Source.REFERENCE:
                values = reference[item.output]
            else:
                is_sound = sound_samples(outputs[item.output], reference[item.output])
                is_known &= is_sound
                values = with_reference(outputs[item.output], is_sound, reference[item.output])
            feeds[item.spec.name] = values.astype(item.spec.dtype, copy=False)
        parts = [self._run({name: array[start : start + BATCH] for name, array in feeds.items()}) for start in range(0, samples, BATCH)]
        return checked_scores(np.concatenate(parts), is_known, "metric model")

    def _run(self, feeds: Mapping[str, Array]) -> NDArray[np.float64]:
        samples = len(next(iter(feeds.values())))
        try:
            (scores,) = self._piece.run(feeds).values()
        except CalibrationError as error:
            raise InvalidMetricError(
                f"metric model: it fails on the outputs of the model: {error.detail}",
                fix="Run it in onnxruntime on the model's outputs for a few validation samples.",
            ) from error
        if scores.shape not in ((samples,), (samples, 1)):
            raise InvalidMetricError(
                f"metric model: scores of shape {scores.shape} for {samples} samples found, expected ({samples},) or ({samples}, 1)",
                fix="Reduce over the axes of a sample only (for mean: keepdims=0), so that one score per sample is left.",
            )
        return scores.reshape(samples).astype(np.float64)

    def _check_output(self, specs: Sequence[TensorSpec]) -> None:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        if len(specs) != 1:
            raise InvalidMetricError(
                f"metric model: {len(specs)} outputs found ({names}), expected one",
                fix="Leave the score of each sample as the only output.",
            )
        spec = specs[0]
        if np.dtype(spec.dtype).kind != "f":
            raise InvalidMetricError(
                f"metric model: output {names} holds {spec.dtype}, expected floating-point scores", fix="Cast it to float32 at the end."
            )


def _binding(spec: TensorSpec, outputs: Collection[str]) -> Binding:
    if spec.name in outputs:
        return Binding(spec, Source.OUTPUT, spec.name)
    if spec.name == LABELS:
        return Binding(spec, Source.LABELS, None)
    name = spec.name.removeprefix(REFERENCE_PREFIX)
    if name != spec.name and name in outputs:
        return Binding(spec, Source.REFERENCE, name)
    raise InvalidMetricError(
        f"metric model: unknown input '{spec.name}', expected an output of the model ({', '.join(map(repr, outputs))}), '{LABELS}', "
        f"or '{REFERENCE_PREFIX}' and an output",
        fix="Rename the input after what it should be fed with.",
    )


def _check_fits(binding: Binding, array: Array | None) -> None:
    assert array is not None  # bindings() refused an input of labels without any
    spec, what = binding.spec, LABELS if binding.output is None else f"output '{binding.output}' of the model"
    wanted, kind = np.dtype(spec.dtype).kind, array.dtype.kind
    is_number = {"f": "f", "i": "iu", "u": "iu", "b": "b"}
    if kind not in is_number.get(wanted, "") and not (binding.source is Source.LABELS and wanted == "f"):
        raise InvalidMetricError(
            f"metric model: input '{spec.name}' is {spec.dtype}, expected {array.dtype.name} like the {what}",
            fix="Give the input that type, and cast it inside the graph.",
        )
    sizes = [None if isinstance(size, str) else size for size in spec.shape[1:]]
    is_fitting = len(spec.shape) == array.ndim and all(size in (None, found) for size, found in zip(sizes, array.shape[1:], strict=True))
    if spec.shape and not is_fitting:  # without axes the graph takes any
        raise InvalidMetricError(
            f"metric model: input '{spec.name}' has the shape {_shown(sizes)}, expected {_shown(array.shape[1:])} like the {what}",
            fix="Give the input that shape, and reshape it inside the graph.",
        )


def _shown(sizes: Sequence[int | None]) -> str:
    return "(" + ", ".join(["samples", *("any" if size is None else str(size) for size in sizes)]) + ")"


def _read(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        external = next((tensor for tensor in all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL), None)
    except (OSError, DecodeError):
        external = None  # read_model says what is wrong
    if external is not None:
        raise InvalidMetricError(
            f"metric model: tensor '{external.name}' lies in another file, expected all data in the .onnx file itself",
            fix="Save it without external data.",
        )
    try:
        return read_model(path)
    except InvalidModelError as error:
        raise InvalidMetricError(f"metric model: {error.detail.removeprefix('model: ')}", fix=error.fix) from error
