"""The Triton model repository of an engine that is an ONNX file: inputs and outputs as the file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from calibration.graph.type_inference import inferred
from calibration.graph.weightless import weightless_copy
from calibration.onnx_model.model_io import TensorSpec, input_specs, output_specs
from engine_builder.backends.engine_tensors import EngineTensor
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.errors import BuildError
from engine_builder.interchange.triton_plan import MODEL_NAME, triton_repository


def onnx_repository(engine: Path, output: Path, *, max_batch_size: int) -> Path:
    """Write the repository of an .onnx file to ``output`` and return that.

    Args:
        engine: The .onnx file, its external data beside it.
        output: The .zip file to write.
        max_batch_size: Most samples that Triton may put into one call, where the model takes any number; 0 where it may not.

    Raises:
        BuildError: Triton cannot be told of an input or output: its type is none of Triton's, or nobody knows how many axes it has.
    """
    inputs, outputs = onnx_tensors(onnx.load(engine, load_external_data=False))
    return triton_repository(
        engine, inputs, outputs, platform=TritonPlatform.ONNXRUNTIME, name=MODEL_NAME, max_batch_size=max_batch_size, output=output
    )


def onnx_tensors(model: onnx.ModelProto) -> tuple[tuple[EngineTensor, ...], tuple[EngineTensor, ...]]:
    """Return the inputs and outputs of a model; shapes that it does not give are inferred.

    Raises:
        BuildError: One is no tensor, or its shape cannot be inferred.
    """
    values = (*model.graph.input, *model.graph.output)
    for value in values:
        if value.type.WhichOneof("value") != "tensor_type":
            raise BuildError(
                f"triton.zip: {value.name!r} is no tensor (a sequence, a map or an optional value), and Triton takes tensors only",
                fix="Export the model without it, or with a tensor in its place.",
            )
    if not all(value.type.tensor_type.HasField("shape") for value in values):
        model = inferred(weightless_copy(model))
    known = {value.name: value.type.tensor_type.HasField("shape") for value in (*model.graph.input, *model.graph.output)}
    return _tensors(input_specs(model), known), _tensors(output_specs(model), known)


def _tensors(specs: Sequence[TensorSpec], known: Mapping[str, bool]) -> tuple[EngineTensor, ...]:
    for spec in specs:
        if not known[spec.name]:
            raise BuildError(
                f"triton.zip: the number of axes of {spec.name!r} is not known",
                fix="Export the model with the shapes of its inputs and outputs.",
            )
    return tuple(
        EngineTensor(spec.name, spec.dtype, tuple(size if isinstance(size, int) else None for size in spec.shape)) for spec in specs
    )
