"""A Triton Inference Server model repository with one model: ``NAME/config.pbtxt`` and the engine as ``NAME/1/model.*``, in a .zip.

Unpack it into the folder that ``tritonserver --model-repository`` names. What is loaded where:

- ``tensorrt_plan``: Triton's TensorRT backend loads a plan only if it has the TensorRT version that built the plan (or the plan was built
  version compatible) and the GPU that it was built for. Plans of TensorRT-RTX are for another runtime: Triton has no backend for them, and
  this module makes no repository of one. Serve such a plan from your own process with the TensorRT-RTX runtime.
- ``onnxruntime_onnx``: Triton's ONNX Runtime backend, on the CPU.

Reference: ``ModelConfig`` in triton-inference-server/common, protobuf/model_config.proto, and its guide "Model Configuration".
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from engine_builder.backends.engine_tensors import EngineTensor, EngineTensors, Profile
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.errors import BuildError
from engine_builder.workspace.external_files import external_files

MODEL_NAME = "model"  # of every job's model in Triton, and of its folder


def triton_repository(
    engine: Path | bytes,
    inputs: Sequence[EngineTensor],
    outputs: Sequence[EngineTensor],
    profiles: Sequence[Profile] = (),
    *,
    platform: TritonPlatform,
    name: str,
    max_batch_size: int,
    output: Path,
) -> Path:
    """Write the repository and return its path; equal arguments give equal bytes.

    Args:
        engine: The plan or the .onnx file, whose external data lie beside it; or its bytes.
        inputs: The engine's inputs.
        outputs: The engine's outputs.
        profiles: The optimization profiles of a plan, in its order; empty where it has none.
        platform: What runs the engine.
        name: The model's name in Triton.
        max_batch_size: See ``config_text``.
        output: The .zip file to write.

    Raises:
        BuildError: See ``config_text``; or external data have the name that Triton gives the model.
    """
    config = config_text(inputs, outputs, profiles, platform=platform, name=name, max_batch_size=max_batch_size)
    externals = external_files(engine) if platform is TritonPlatform.ONNXRUNTIME and isinstance(engine, Path) else ()
    if _FILES[platform] in externals:
        raise BuildError(
            f"triton.zip: the external data of the model are in a file {_FILES[platform]!r}, which Triton takes for the model",
            fix="Save the model again with its external data under another name, such as 'weights.data'.",
        )
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # weights hardly shrink
        archive.writestr(_entry(f"{name}/config.pbtxt"), config)
        folder = f"{name}/1"
        if isinstance(engine, bytes):
            archive.writestr(_entry(f"{folder}/{_FILES[platform]}"), engine)
        else:
            _add(archive, engine, f"{folder}/{_FILES[platform]}")
            for external in externals:
                _add(archive, engine.parent / external, f"{folder}/{external}")
    return output


def plan_repository(plan: Path, tensors: EngineTensors, output: Path, *, may_batch: bool = True) -> Path:
    """Write the repository of a TensorRT plan to ``output`` and return that.

    Args:
        plan: The plan.
        tensors: Its inputs, outputs and profiles, as the plan has them.
        output: The .zip file to write.
        may_batch: Whether first axes count samples, any number of them, where their size is free.

    Raises:
        BuildError: See ``config_text``.
    """
    greatest = [min((shapes[2][0] for shapes in profile.values() if shapes[2]), default=1) for profile in tensors.profiles]
    return triton_repository(
        plan,
        tensors.inputs,
        tensors.outputs,
        tensors.profiles,
        platform=TritonPlatform.TENSORRT,
        name=MODEL_NAME,
        max_batch_size=max(greatest, default=1) if may_batch else 0,
        output=output,
    )


def config_text(
    inputs: Sequence[EngineTensor],
    outputs: Sequence[EngineTensor],
    profiles: Sequence[Profile] = (),
    *,
    platform: TritonPlatform,
    name: str,
    max_batch_size: int,
) -> str:
    """Return ``config.pbtxt``.

    Rules:
        1. Triton may put requests together only if the first axis of every input and every output is free and counts samples, and a
           profile starts at one sample: then ``max_batch_size`` is set, at most what one of the profiles allows, and shapes are given
           without their first axis. Else it is 0 and shapes are whole.
        2. A free axis is -1; a shape of no axes is one element for the client, reshaped for the engine.
        3. With several profiles all are listed, so that Triton picks the one that fits a request, by its ``opt``; it answers a request
           that none fits with an error. One that starts above ``max_batch_size`` is left out: Triton would not load the plan with it.

    Args:
        inputs: The engine's inputs.
        outputs: The engine's outputs.
        profiles: The optimization profiles of a plan.
        platform: What runs the engine.
        name: The model's name in Triton, which is also its folder's.
        max_batch_size: Most samples in one call, where rule 1 allows any; 0 where first axes do not count samples, or calls have a fixed
            number of them.

    Raises:
        BuildError: The name is no folder's name, or Triton has no word for an element type.
    """
    _check_name(name)
    batch = _batch(inputs, outputs, profiles, max_batch_size)
    lines = [f"name: {_quoted(name)}", f"platform: {_quoted(platform.value)}", f"max_batch_size: {batch}"]
    for field, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            lines += _tensor_lines(field, tensor, has_batch=batch > 0)
    kind = "KIND_GPU" if platform is TritonPlatform.TENSORRT else "KIND_CPU"
    lines += ["instance_group {", "  count: 1", f"  kind: {kind}"]
    if len(profiles) > 1:  # rule 3
        usable = [index for index, profile in enumerate(profiles) if not batch or _samples(profile)[0] <= batch]
        lines += [f"  profile: {_quoted(str(index))}" for index in usable]
    return "\n".join([*lines, "}", ""])


def _batch(inputs: Sequence[EngineTensor], outputs: Sequence[EngineTensor], profiles: Sequence[Profile], most: int) -> int:
    """Return ``max_batch_size`` by rule 1."""
    if not most or not all(tensor.shape[:1] == (None,) for tensor in (*inputs, *outputs)):
        return 0
    if not profiles:
        return most
    samples = [_samples(profile) for profile in profiles]
    return min(most, max(greatest for _, greatest in samples)) if any(least == 1 for least, _ in samples) else 0


def _samples(profile: Profile) -> tuple[int, int]:
    """Return the fewest and most samples that every input of a profile takes on its first axis."""
    return max(least[0] for least, _, _ in profile.values()), min(greatest[0] for _, _, greatest in profile.values())


def _tensor_lines(field: str, tensor: EngineTensor, *, has_batch: bool) -> list[str]:
    data_type = _DATA_TYPES.get(tensor.dtype)
    if data_type is None:
        raise BuildError(
            f"triton.zip: {field} {tensor.name!r} has the type {tensor.dtype}, Triton takes {', '.join(_DATA_TYPES)}",
            fix="Give the model inputs and outputs of these types: add a Cast at its border.",
        )
    dims = [-1 if size is None else size for size in tensor.shape[has_batch:]]
    lines = [f"{field} {{", f"  name: {_quoted(tensor.name)}", f"  data_type: {data_type}"]
    if dims:
        lines += [f"  dims: {dim}" for dim in dims]
    else:  # rule 2
        lines += ["  dims: 1", "  reshape {", "  }"]
    return [*lines, "}"]


def _quoted(text: str) -> str:
    """Return a string of protobuf's text format: quotes, backslashes and whatever is not printable ASCII as octal bytes."""
    plain = (
        chr(byte) if _FIRST_PRINTABLE <= byte <= _LAST_PRINTABLE and byte not in b"\"\\'" else f"\\{byte:03o}" for byte in text.encode()
    )
    return '"' + "".join(plain) + '"'


def _check_name(name: str) -> None:
    if not name or name in {".", ".."} or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise BuildError(
            f"triton.zip: the model name {name!r} cannot be the name of a folder", fix="Use letters, digits, '-', '_' and '.' alone."
        )


def _add(archive: zipfile.ZipFile, source: Path, name: str) -> None:
    with source.open("rb") as stream, archive.open(_entry(name), "w", force_zip64=True) as target:
        shutil.copyfileobj(stream, target, _CHUNK_BYTES)


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry with the earliest date that a .zip can hold, so that equal content gives equal bytes."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


_FILES = {TritonPlatform.TENSORRT: "model.plan", TritonPlatform.ONNXRUNTIME: "model.onnx"}
_DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "object": "TYPE_STRING",  # how numpy calls ONNX's strings
}
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E
_CHUNK_BYTES = 2**20
