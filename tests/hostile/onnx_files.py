"""ONNX files that escape their folder, claim huge sizes, nest without end, or carry huge words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import TensorProto, helper

from tests.hostile.upload import Ends, Upload
from tests.hostile.zips import sound_zip
from tests.model_text import cnn

MIB = 2**20
Change = Callable[[onnx.ModelProto], None]


def changed(change: Change) -> Callable[[], bytes]:
    def content() -> bytes:
        model = cnn()
        change(model)
        return bytes(model.SerializeToString())

    return content


def external(location: str, length: str | None = None, offset: str | None = None) -> Callable[[], bytes]:
    """A zip, since external data of a lone file have no folder."""

    def content() -> bytes:
        model = cnn()
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", length), ("offset", offset)):
            if value is not None:
                tensor.external_data.add(key=key, value=value)
        return sound_zip(("model.onnx", model.SerializeToString()), ("weights.bin", bytes(64)))

    return content


def deep_subgraphs(depth: int) -> bytes:
    """Written by hand: protobuf's own limit is on reading, so each level is wrapped as bytes."""

    def field(number: int, data: bytes) -> bytes:
        length, out = len(data), bytearray([number << 3 | 2])
        while length >= 0x80:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(out) + bytes([length]) + data

    graph = field(2, b"g")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute)) + field(2, b"g")
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def one_node(kind: str, *, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node(kind, ["before"], [output], domain=domain))

    return change


def grows(model: onnx.ModelProto) -> None:
    """An output of 2**42 elements, from a few bytes."""
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(helper.make_tensor("huge", TensorProto.INT64, [2], [2**21, 2**21]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["filled"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], [output]))


def loops(model: onnx.ModelProto) -> None:
    """A loop of 2**62 steps."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))]
        + [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", TensorProto.FLOAT, None)],
    )
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(helper.make_tensor("steps", TensorProto.INT64, [], [2**62]))
    model.graph.node.append(helper.make_node("Loop", ["steps", "", "before"], [output], body=body))


def renamed(name: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        old = model.graph.node[0].output[0]
        for node in model.graph.node:
            node.input[:] = [name if one == old else one for one in node.input]
            node.output[:] = [name if one == old else one for one in node.output]

    return change


def calls_itself(model: onnx.ModelProto) -> None:
    node = helper.make_node("F", ["a"], ["b"], domain="own")
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [node], [helper.make_opsetid("own", 1)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    one_node("F", domain="own")(model)


def functions_without_end(model: onnx.ModelProto) -> None:
    """2**40 nodes: each function calls the next one twice."""
    own, standard = helper.make_opsetid("own", 1), helper.make_opsetid("", 17)
    for index in range(40):
        calls = [helper.make_node(f"F{index + 1}", [one], [other], domain="own") for one, other in (("a", "c"), ("c", "b"))]
        nodes = calls if index < 39 else [helper.make_node("Relu", ["a"], ["b"])]
        model.functions.append(helper.make_function("own", f"F{index}", ["a"], ["b"], nodes, [own, standard]))
    model.opset_import.append(own)
    one_node("F0", domain="own")(model)


def sized(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dims

    return change


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def onnx_files() -> Iterator[Upload]:
    cases: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "garbage": lambda: b"\xff" * 10_000,
        "zeros": lambda: bytes(10_000),
        "html": lambda: b"<html>",
        "cut": lambda: cnn().SerializeToString()[:500],
        "external-parent": external("../../../../etc/passwd"),
        "external-absolute": external("/etc/passwd"),
        "external-windows": external("C:\\weights.bin"),
        "external-zero-byte": external("weights.bin\0"),
        "external-huge-length": external("weights.bin", length=str(2**62)),
        "external-negative": external("weights.bin", offset="-1"),
        "external-words": external("weights.bin", length="many"),
        "external-missing": external("missing.bin"),
        "external-folder": external("."),
        "external-long": external("w" * 100_000),
        "dims-huge": changed(sized(2**40, 2**20)),
        "dims-overflow": changed(sized(2**62, 4)),
        "dims-negative": changed(sized(-1, 1, 3, 3)),
        "subgraphs-deep": lambda: deep_subgraphs(30),
        "subgraphs-too-deep": lambda: deep_subgraphs(1000),
        "cycle": changed(cycle),
        "operator-of-20-mb": changed(one_node("A" * 20 * MIB)),
        "operator-unknown": changed(one_node("Exec\x1b[2J\nINFO forged")),
        "tensor-of-3-mb": changed(renamed("t" * 3 * MIB)),
        "domain-unknown": changed(one_node("Run", domain="evil.example")),
        "opset-huge": changed(lambda model: setattr(model.opset_import[0], "version", 2**60)),
        "ir-version-huge": changed(lambda model: setattr(model, "ir_version", 2**60)),
        "output-missing": changed(lambda model: setattr(model.graph.output[0], "name", "nowhere")),
        "input-missing": changed(lambda model: model.graph.node[0].input.__setitem__(0, "nowhere")),
        "element-type": changed(lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 99)),
        "calls-itself": changed(calls_itself),
        "functions-without-end": changed(functions_without_end),
        "no-graph": lambda: onnx.ModelProto(ir_version=8).SerializeToString(),
    }
    for name, content in cases.items():
        yield Upload(f"onnx-{name}", "model", content, Ends.FAILS)
    harmless = {
        "memory-bomb": changed(grows),
        "description-of-5-mb": changed(lambda model: setattr(model, "doc_string", "d" * 5 * MIB)),
        "control-characters": changed(renamed("\x1b[2J\nINFO forged \u202e")),
        "path-as-name": changed(renamed("/etc/passwd")),
    }
    for name, content in harmless.items():
        yield Upload(f"onnx-{name}", "model", content, Ends.HARMLESS)


def endless() -> Upload:
    """What only the deadline of a stage ends; it is cancelled."""
    return Upload("onnx-loop-without-end", "model", changed(loops), Ends.HARMLESS)
