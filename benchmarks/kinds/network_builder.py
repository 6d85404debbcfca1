"""Writes a small network node by node, and runs it in plain onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17  # that of the example networks, whose layers some of these networks begin with
IR_VERSION = 8
BATCH = 64  # samples in one call where speed does not matter

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
Axis = int | str
Shapes = Mapping[str, Sequence[Axis]]
AttributeValue = int | float | str | Sequence[int]


class NetworkBuilder:
    """Collects nodes and weights; every method adds some and returns the name of the tensor that they make."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, to: str | None = None, **attributes: AttributeValue) -> str:
        """Add one node with one output, called ``to``, or after its operator and place."""
        name = to or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=f"node_{name}"))
        self._nodes[-1].attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        return name

    def constant(self, array: Array) -> str:
        """Add a weight; float64 becomes float32."""
        name = f"weight_{len(self._weights)}"
        stored = array.astype(np.float32) if array.dtype == np.float64 else array
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(stored), name))
        return name

    def shape(self, *sizes: int) -> str:
        """Add a shape or a list of axes."""
        return self.constant(np.asarray(sizes, dtype=np.int64))

    def convolution(self, source: str, kernel: Floats, bias: Floats | None = None, *, stride: int = 1, to: str | None = None) -> str:
        """Add a convolution that keeps the size, divided by the stride.

        Args:
            source: (samples, in_channels, height, width).
            kernel: (out_channels, in_channels, size, size), the size odd.
            bias: (out_channels,); none by default.
            stride: Of both axes.
            to: Name of the result.
        """
        inputs = [source, self.constant(kernel), *([] if bias is None else [self.constant(bias)])]
        return self.node("Conv", *inputs, to=to, pads=[kernel.shape[2] // 2] * 4, strides=[stride, stride])

    def dense(self, source: str, weight: Floats, bias: Floats, *, to: str | None = None) -> str:
        """Add a linear layer: ``source`` (samples, inputs), ``weight`` (inputs, outputs), ``bias`` (outputs,)."""
        return self.node("Gemm", source, self.constant(weight), self.constant(bias), to=to)

    def begin_with(self, model: onnx.ModelProto, until: str, source: str) -> str:
        """Copy the nodes of a network with one input that the tensor ``until`` needs, and their weights; it reads ``source``."""
        producers = {name: node for node in model.graph.node for name in node.output}
        needed, wanted = {until}, [until]
        while wanted:
            node = producers.get(wanted.pop())
            new = [name for name in node.input if name and name not in needed] if node is not None else []
            needed.update(new)
            wanted.extend(new)
        for node in model.graph.node:
            if node.output[0] in needed:
                copied = onnx.NodeProto()
                copied.CopyFrom(node)
                copied.input[:] = [source if name == model.graph.input[0].name else name for name in node.input]
                self._nodes.append(copied)
        self._weights.extend(weight for weight in model.graph.initializer if weight.name in needed)
        return until

    def model(self, inputs: Shapes, outputs: Shapes) -> onnx.ModelProto:
        """Return the checked network; inputs and outputs are float32."""

        def values(shapes: Shapes) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]

        graph = helper.make_graph(self._nodes, "kinds", values(inputs), values(outputs), self._weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(made, full_check=True)
        return made


class Network:
    """A model in plain onnxruntime, one thread, without any of the project's code."""

    def __init__(self, model: bytes, *, batch_axes: Mapping[str, int] | None = None) -> None:
        """Open a model.

        Args:
            model: The file's bytes.
            batch_axes: The axis of each output that counts samples, where it is not the first.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._batch_axes = dict(batch_axes or {})

    def call(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return what one call returns."""
        return tuple(self._session.run(None, dict(feeds)))

    def run(self, samples: Mapping[str, Array], *, batch: int = BATCH) -> dict[str, Array]:
        """Return all outputs for all samples, those first, by name.

        Args:
            samples: Inputs, samples first.
            batch: Samples in one call; the last call may have fewer.
        """
        count = len(next(iter(samples.values())))
        calls = [self.call({name: array[start : start + batch] for name, array in samples.items()}) for start in range(0, count, batch)]
        parts = {name: [call[index] for call in calls] for index, name in enumerate(self.outputs)}
        return {name: np.concatenate([np.moveaxis(one, self._batch_axes.get(name, 0), 0) for one in part]) for name, part in parts.items()}
