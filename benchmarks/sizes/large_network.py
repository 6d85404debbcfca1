"""Writes a network of any size, node by node: its weights go to the disk as they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8
IN_FILE_BYTES = 1024  # smaller weights stay in the .onnx file: shapes and axes are read there

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
AttributeValue = int | float | str | Sequence[int]
Signature = Mapping[str, tuple[str, Sequence[int | str]]]  # dtype and shape of each input or output


class LargeNetwork:
    """Collects nodes and weights; every method adds some and returns the name of the tensor that they make.

    A context manager: ``save`` is called inside. Random weights are drawn so that activations keep about the size they come with.
    """

    def __init__(self, path: Path, *, seed: int = 0) -> None:
        """Begin a network.

        Args:
            path: The .onnx file to be; weights are written beside it until ``save``.
            seed: Of the random weights.
        """
        self._path, self._data = path, path.with_name(path.name + ".data")
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._stream = self._data.open("wb")

    def __enter__(self) -> LargeNetwork:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def node(self, operator: str, *inputs: str, called: str | None = None, **attributes: AttributeValue) -> str:
        """Add one node with one output, named ``called``, or after its operator and place."""
        name = called or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=f"node_{name}"))
        self._nodes[-1].attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        return name

    def constant(self, array: Array) -> str:
        """Add a weight; float64 becomes float32."""
        stored = np.ascontiguousarray(array.astype(np.float32) if array.dtype == np.float64 else array)
        name = f"weight_{len(self._weights)}"
        if stored.nbytes < IN_FILE_BYTES:
            self._weights.append(numpy_helper.from_array(stored.reshape(array.shape), name))
            return name
        kind = helper.np_dtype_to_tensor_dtype(stored.dtype)
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=stored.shape, data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", self._data.name), ("offset", self._stream.tell()), ("length", stored.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._stream.write(stored.tobytes())
        self._weights.append(tensor)
        return name

    def shape(self, *sizes: int) -> str:
        """Add a shape or a list of axes."""
        return self.constant(np.asarray(sizes, dtype=np.int64))

    def normal(self, *sizes: int, deviation: float) -> Floats:
        """Return normal numbers of this standard deviation."""
        return self._rng.standard_normal(sizes, dtype=np.float32) * np.float32(deviation)

    def uniform(self, low: float, high: float, *sizes: int) -> Floats:
        """Return uniform numbers between two bounds."""
        return self._rng.uniform(low, high, sizes).astype(np.float32)

    def convolution(
        self, source: str, channels: tuple[int, int], size: int, *, stride: int = 1, gain: float = 2.0, bias: float = 0.0
    ) -> str:
        """Add a convolution with a bias that keeps the size, divided by the stride.

        Args:
            source: (samples, channels[0], height, width).
            channels: In and out.
            size: Of the kernel, odd.
            stride: Of both axes.
            gain: Variance of the output in units of the input's mean square (He, 2015: 2 before a Relu).
            bias: Mean of the biases.
        """
        weight = self.normal(channels[1], channels[0], size, size, deviation=(gain / (channels[0] * size * size)) ** 0.5)
        biases = self.constant(bias + self.normal(channels[1], deviation=0.05))
        return self.node("Conv", source, self.constant(weight), biases, pads=[size // 2] * 4, strides=[stride, stride])

    def dense(self, source: str, sizes: tuple[int, int], *, bias: bool = True, gain: float = 1.0) -> str:
        """Add a product with a weight, ``sizes`` in and out, on the last axis, and a bias."""
        made = self.node("MatMul", source, self.constant(self.normal(*sizes, deviation=(gain / sizes[0]) ** 0.5)))
        return self.node("Add", made, self.constant(self.normal(sizes[1], deviation=0.02))) if bias else made

    def layer_norm(self, source: str, size: int) -> str:
        """Add a normalization of the last axis."""
        scale, offset = self.uniform(0.5, 1.5, size), self.normal(size, deviation=0.05)
        return self.node("LayerNormalization", source, self.constant(scale), self.constant(offset), axis=-1, epsilon=1e-5)

    def save(self, inputs: Signature, outputs: Signature, *, one_file: bool) -> None:
        """Write the checked network.

        Args:
            inputs: Of the graph.
            outputs: Of the graph.
            one_file: Keep all weights in the .onnx file, which must be below 2 GB; else they stay in ``<name>.data`` beside it.
        """
        self._stream.close()
        graph = helper.make_graph(self._nodes, "large", _values(inputs), _values(outputs), self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.save_model(model, self._path)
        onnx.checker.check_model(str(self._path), full_check=True)  # by path: it takes any size
        if one_file:
            onnx.save_model(onnx.load_model(self._path), self._path)
            self._data.unlink()


def _values(signature: Signature) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
        for name, (dtype, shape) in signature.items()
    ]
