"""Models that onnxruntime runs although the ONNX standard, or onnx's own tools, do not take them as they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser

from tests.model_text import ModelMaker, model_from_text

Weights = Mapping[str, tuple[int, ...]]
ROWS: Weights = {"w1": (6, 6), "w2": (6, 3)}
PICTURES: Weights = {"w1": (4, 1, 3, 3), "w3": (3, 4), "b3": (3,)}
TAIL = "p = GlobalAveragePool(a) f = Flatten(p) y = Gemm<transB=1>(f, w3, b3)"


def with_domains(model: onnx.ModelProto, **versions: int) -> onnx.ModelProto:
    """Import further domains, ``__`` for each dot."""
    model.opset_import.extend(onnx.helper.make_opsetid(name.replace("__", "."), version) for name, version in versions.items())
    return model


def rows(body: str, weights: Weights = ROWS, *, opset: int = 17, **domains: int) -> onnx.ModelProto:
    return with_domains(model_from_text(f"g (float[N,6] x) => (float[N,3] y) {{ {body} }}", weights, opset=opset), **domains)


def pictures(body: str, *, opset: int, constants: str = "", weights: Weights = PICTURES) -> onnx.ModelProto:
    text = f"g (float[N,1,8,8] x) => (float[N,3] y) {constants} {{ c = Conv<pads=[1,1,1,1]>(x, w1) {body} {TAIL} }}"
    return model_from_text(text, weights, opset=opset, ir_version=4)


def scaler() -> onnx.ModelProto:
    """A scikit-learn pipeline: imputer, scaler, two dense layers."""
    return rows(
        """filled = ai.onnx.ml.Imputer<imputed_value_floats=[0.5], replaced_value_float=-1.0>(x)
        scaled = ai.onnx.ml.Scaler<offset=[0.5, 0.1, 0.0, 0.2, 0.3, 0.4], scale=[2.0, 1.0, 1.0, 0.5, 1.0, 3.0]>(filled)
        h = MatMul(scaled, w1) r = Relu(h) y = MatMul(r, w2)""",
        ai__onnx__ml=1,
    )


def old_scaler() -> onnx.ModelProto:
    return rows(
        "scaled = ai.onnx.ml.Scaler<offset=[0.5], scale=[2.0]>(x) h = MatMul(scaled, w1) r = Clip<min=0.0, max=6.0>(h) y = MatMul(r, w2)",
        opset=9,
        ai__onnx__ml=1,
    )


def fused_operators() -> onnx.ModelProto:
    return rows(
        """h = MatMul(x, w1) g = com.microsoft.BiasGelu(h, b) n = com.microsoft.SkipLayerNormalization<epsilon=0.00001>(g, h, s, b)
        f = com.microsoft.FastGelu(n) q = com.microsoft.QuickGelu(f) y = com.microsoft.FusedMatMul<alpha=0.5>(q, w2)""",
        {**ROWS, "s": (6,), "b": (6,)},
        opset=14,
        com__microsoft=1,
    )


def domain_not_imported() -> onnx.ModelProto:
    return rows("h = MatMul(x, w1) g = com.microsoft.Gelu(h) y = MatMul(g, w2)")


def early_layer_norm() -> onnx.ModelProto:
    """As exporters wrote it before opset 17: onnxruntime has always had LayerNormalization in the standard domain."""
    return rows("h = MatMul(x, w1) n = LayerNormalization<axis=-1>(h, s, b) y = MatMul(n, w2)", {**ROWS, "s": (6,), "b": (6,)}, opset=13)


def simplified_layer_norm() -> onnx.ModelProto:
    return rows("h = MatMul(x, w1) n = SimplifiedLayerNormalization<axis=-1>(h, s) y = MatMul(n, w2)", {**ROWS, "s": (6,)}, opset=14)


def function_of_another_opset() -> onnx.ModelProto:
    """onnxruntime itself refuses it: ReduceSum has no axes at 17."""
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0.5, -1.0, 0.25, 2.0}> { h = MatMul(x, w) a = local.share(h) y = MatMul(a, w) }
        <domain: "local", opset_import: ["" : 11]>
        share (a) => (b) { s = ReduceSum<axes=[1], keepdims=1>(a) b = Sub(a, s) }"""
    )


def domain_by_its_long_name() -> onnx.ModelProto:
    model = rows("h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2)", opset=13)
    for node in model.graph.node:
        node.domain = "ai.onnx"
    del model.opset_import[:]
    return with_domains(model, ai__onnx=13)


def output_without_shape() -> onnx.ModelProto:
    model = rows("h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2)")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def unlisted_initializers() -> onnx.ModelProto:
    """IR version 3 wants each initializer listed as an input; onnxruntime does not."""
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = Gemm(x, w, b) }", {"w": (6, 3), "b": (3,)}, opset=8, ir_version=3)


def sequences() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,3] y) <int64 half = {3}, int64 first = {0}, int64 last = {1}> {
            h = MatMul(x, w1) parts = SplitToSequence<axis=1>(h, half) same = Identity(parts)
            a = SequenceAt(same, first) b = SequenceAt(same, last) s = Add(a, b) y = MatMul(s, w2)
        }""",
        {"w1": (6, 6), "w2": (3, 3)},
        opset=15,
    )


def optional_values() -> onnx.ModelProto:
    return rows("h = MatMul(x, w1) o = Optional(h) e = OptionalGetElement(o) y = MatMul(e, w2)", opset=15)


def old_dropout() -> onnx.ModelProto:
    return pictures("d = Dropout<ratio=0.4>(c) a = Relu(d)", opset=7)


def batch_norm_of_every_element() -> onnx.ModelProto:
    statistics = {"scale": (4, 8, 8), "bias": (4, 8, 8), "mean": (4, 8, 8)}
    model = pictures(
        "n = BatchNormalization<spatial=0, epsilon=0.01>(c, scale, bias, mean, variance) a = Relu(n)",
        opset=7,
        weights={**PICTURES, **statistics},
    )
    variance = np.random.default_rng(0).uniform(0.5, 2.0, (4, 8, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(variance, "variance"))
    return model


def old_hardmax() -> onnx.ModelProto:
    return pictures("h = Hardmax<axis=2>(c) a = Add(h, c)", opset=9)


def old_operators() -> onnx.ModelProto:
    return pictures(
        """i = ImageScaler<scale=0.5, bias=[0.1, 0.2, 0.3, 0.4]>(c) u = Affine<alpha=2.0, beta=0.5>(i)
        t = ScaledTanh<alpha=0.5, beta=2.0>(u) s = ParametricSoftplus<alpha=0.5, beta=2.0>(t) a = Crop<border=[1, 0, 2, 3]>(s)""",
        opset=8,
    )


def old_upsample(mode: str, scale: float, opset: int) -> onnx.ModelProto:
    if opset < 9:
        return pictures(f'a = Upsample<mode="{mode}", scales=[1.0, 1.0, {scale}, {scale}]>(c)', opset=opset)
    constants = f"<float[4] scales = {{1.0, 1.0, {scale}, {scale}}}>"
    operator = "Upsample" if opset == 9 else "Resize"
    return pictures(f'a = {operator}<mode="{mode}">(c, scales)', opset=opset, constants=constants)


def old_pad(mode: str) -> onnx.ModelProto:
    return pictures(f'a = Pad<mode="{mode}", pads=[0,0,1,2,0,0,2,1], value=1.5>(c)', opset=9)


def label_outputs() -> onnx.ModelProto:
    """A classifier as skl2onnx writes it: the label as text, the probabilities as a map for each sample, and as a tensor."""
    model = model_from_text(
        """g (float[N,6] x) => (float[N,3] probabilities) {
            h = MatMul(x, w1) r = Relu(h) z = MatMul(r, w2) probabilities = Softmax<axis=1>(z)
            best = ArgMax<axis=1, keepdims=0>(z)
            label = ai.onnx.ml.LabelEncoder<keys_int64s=[0, 1, 2], values_strings=["cat", "dog", "owl"]>(best)
            by_name = ai.onnx.ml.ZipMap<classlabels_strings=["cat", "dog", "owl"]>(probabilities)
        }""",
        ROWS,
    )
    number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    mapping = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, number)
    text = onnx.helper.make_tensor_type_proto(onnx.TensorProto.STRING, ["N"])
    model.graph.output.insert(0, onnx.ValueInfoProto(name="label", type=text))
    model.graph.output.append(onnx.ValueInfoProto(name="by_name", type=onnx.helper.make_sequence_type_proto(mapping)))
    return with_domains(model, ai__onnx__ml=2)


RUNTIME_ONLY: Mapping[str, ModelMaker] = {
    maker.__name__: maker
    for maker in (
        scaler,
        old_scaler,
        fused_operators,
        domain_not_imported,
        early_layer_norm,
        simplified_layer_norm,
        domain_by_its_long_name,
        output_without_shape,
        unlisted_initializers,
        sequences,
        optional_values,
        old_dropout,
        batch_norm_of_every_element,
        old_hardmax,
        old_operators,
        label_outputs,
    )
}
