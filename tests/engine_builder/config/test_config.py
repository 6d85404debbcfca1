from __future__ import annotations

import dataclasses
import json

import pytest

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.errors import InvalidConfigError
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeMethod
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.config.config import Config, Order, SearchConfig, ShapeRange, config_from_json, config_json, json_schema
from engine_builder.config.precisions import require_precisions

OUTPUT_KINDS = "logits, probabilities, values, labels, scores, embedding, regression, detections, ignore"
METRICS = "top1, top5, agreement, cosine, closeness, fidelity, nmse, psnr, kl, token_f1, span_f1, custom"
FULL = {
    "target": "tensorrt",
    "gpu": "RTX 4090",
    "assignment": {"conv1": "int8", "*": "fp16"},
    "assignment_only": False,
    "accuracy": {
        "metric": "agreement",
        "min_relative": 0.97,
        "max_drop": None,
        "min_score": None,
        "max_nmse": None,
        **dict.fromkeys(("max_kl", "min_psnr", "min_si_snr")),
        "confidence": 0.95,
        "label_names": None,
        "measure": {
            "threshold": None,
            "blank": None,
            "neighbours": None,
            "class_axis": None,
            "boxes": None,
            "objectness": False,
            "background": None,
            "nms_iou": 0.65,
        },
        "allow_chance": True,
    },
    "outputs": {"scores": "probabilities", "debug": "ignore"},
    "preprocess": {
        "resize": {"size": [256], "mode": "shorter_side", "interpolation": "bicubic", "fill": 0},
        "crop": [224, 224],
        "scale": 0.5,
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0],
        "layout": "NHWC",
        "colors": "BGR",
        "classes": ["cat", "dog"],
    },
    "tokens": {"pad": 0},
    "precisions": ["fp16", "int8"],
    "shapes": {"tokens": {"min": [1, 1], "opt": [8, 64], "max": [32, 256]}},
    "state": {"hn": "h0"},
    "batch_size": 8,
    "analysis": "full",
    "search": {"max_trials": 20, "max_seconds": 600.0, "orders": ["loss", "hessian"], "seed": 7},
    "calibration": {"method": "percentile", "samples": 256, "repair": False, "second_order": ["int8"]},
    "builder": {
        "workspace_mb": 2048,
        "optimization_level": 5,
        "search_optimization_level": 2,
        "hardware_compatible": True,
        "version_compatible": True,
        "share_kernel_times": False,
        "build_routes": "fast",
        "weight_streaming_mb": 4096,
        "strip_weights": True,
        "profiles": [{"min": 1, "opt": 1, "max": 4}, {"min": 5, "opt": 8, "max": 64}],
    },
    "threads": 4,
    "exact_on": "any_x86_64",
}


def test_an_empty_object_is_the_default_configuration() -> None:
    config = config_from_json({})
    assert config == Config()
    assert config.target == "onnxruntime-cpu"
    assert config.accuracy.budget == Budget(min_relative=0.99)
    assert config.accuracy.metric is None
    assert config.search == SearchConfig(orders=tuple(Order))
    assert (config.batch_size, config.threads, config.precisions) == (1, 1, None)


def test_every_key_is_read() -> None:
    config = config_from_json(FULL)
    assert config.accuracy == AccuracyConfig(metric=Metric.AGREEMENT, min_relative=0.97, confidence=0.95, allow_chance=True)
    assert config.outputs == {"scores": OutputKind.PROBABILITIES, "debug": OutputKind.IGNORE}
    assert config.precisions == (Precision.FP16, Precision.INT8)
    assert config.shapes == {"tokens": ShapeRange(min=(1, 1), opt=(8, 64), max=(32, 256))}
    assert config.calibration.method is RangeMethod.PERCENTILE
    assert config.search.max_seconds == 600.0


@pytest.mark.parametrize("data", [{}, FULL, {"accuracy": {"max_nmse": 0.01}}, {"accuracy": {"metric": "psnr", "min_psnr": 40}}])
def test_the_effective_configuration_reads_back_equal(data: object) -> None:
    config = config_from_json(data)
    assert config_from_json(json.loads(json.dumps(config_json(config), allow_nan=False))) == config


def test_an_output_is_a_kind_or_an_object_of_its_kind_and_weight() -> None:
    config = config_from_json(
        {"outputs": {"a": "logits", "b": {"kind": "values", "weight": 2}, "c": {"weight": 0.5}, "d": {"kind": "ignore"}}}
    )
    assert config.output_kinds == {"a": OutputKind.LOGITS, "b": OutputKind.VALUES, "d": OutputKind.IGNORE}
    assert config.output_weights == {"b": 2.0, "c": 0.5, "d": 1.0}
    assert config_from_json(json.loads(json.dumps(config_json(config)))) == config


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"a": "logit"}, "outputs.a: found 'logit', expected one of logits, probabilities, values, labels, "),
        ({"a": None}, "outputs.a: found null, expected one of logits"),
        ({"a": {"kind": "logit"}}, "outputs.a.kind: found 'logit'"),
        ({"a": {"wieght": 1}}, "outputs.a: found the unknown key 'wieght'"),
    ],
)
def test_an_output_of_another_form_is_refused(outputs: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"outputs": outputs})
    assert caught.value.detail.startswith(words)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ({"metric": "top1", "label_names": ["O"]}, "accuracy: found label_names with the metric top1, expected token_f1 or span_f1"),
        ({"max_nmse": 0.1, "label_names": ["O"]}, "accuracy: found label_names with the metric nmse"),
        ({"metric": "span_f1", "label_names": ["O", "PER"]}, "accuracy: label_names[1]: found 'PER'"),
        ({"metric": "token_f1", "label_names": ["O", "O"]}, "accuracy.label_names: found ['O', 'O'], expected each value once"),
        ({"metric": "custom", "max_nmse": 0.1}, "accuracy: found the metric custom with max_nmse, expected min_relative"),
    ],
)
def test_names_of_classes_must_fit_the_metric(accuracy: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"accuracy": accuracy})
    assert caught.value.detail.startswith(words)


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (
            {"metric": "cosine", "measure": {"threshold": 0.3}},
            "accuracy: measure.threshold: found with the metric cosine, expected decisions or average_precision or detections or mean_iou",
        ),
        ({"metric": "retrieval", "measure": {"blank": 0}}, "accuracy: measure.blank: found with the metric retrieval"),
        ({"metric": "detections", "measure": {"boxes": "xyxy"}}, "accuracy.measure.boxes: found 'xyxy', expected one of x1y1x2y2, "),
        ({"metric": "retrieval", "measure": {"neighbours": 0}}, "accuracy.measure.neighbours: found 0, expected a whole number at least 1"),
        ({"metric": "si_snr"}, "accuracy: the metric si_snr needs `min_si_snr`"),
    ],
)
def test_how_outputs_are_read_must_fit_the_metric(accuracy: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"accuracy": accuracy})
    assert caught.value.detail.startswith(words)


def test_the_effective_configuration_of_a_full_one_is_that_one() -> None:
    assert config_json(config_from_json(FULL)) == {**FULL, "gpus": [], "objective": None}  # other questions


@pytest.mark.parametrize(
    ("data", "detail", "fix"),
    [
        ({"bach_size": 4}, "config: found the unknown key 'bach_size'", "Did you mean `batch_size`?"),
        ({"accuracy": {"min_relativ": 1}}, "accuracy: found the unknown key 'min_relativ'", "Did you mean `min_relative`?"),
        ({"min_relative": 0.99}, "config: found the unknown key 'min_relative'", "Did you mean `accuracy.min_relative`?"),
        ({"SEED": 1}, "config: found the unknown key 'SEED'", "Did you mean `search.seed`?"),
        ({"xyzzy": 1}, "config: found the unknown key 'xyzzy'", "Remove it. Known here: target, gpu, gpus, accuracy"),
        ({"calibration": {"repairs": True}}, "calibration: found the unknown key 'repairs'", "Did you mean `repair`?"),
        (
            {"calibration": {"second_order": ["fp8"]}},
            "calibration: second_order: found fp8, expected one of int8, int8_dynamic, int8_weights, int4_weights, int4",
            "only integer weights",
        ),
        ({"calibration": {"repair": "off"}}, "calibration.repair: found 'off', expected true or false", "leave it out"),
        (
            {"shapes": {"x": {"min": [1], "opt": [1], "max": [1], "most": [1]}}},
            "shapes.x: found the unknown key 'most'",
            "Known here: min, opt, max",
        ),
    ],
)
def test_an_unknown_key_is_refused_naming_the_nearest(data: object, detail: str, fix: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json(data)
    assert caught.value.detail == detail
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ([], "config: found [], expected an object"),
        (None, "config: found null, expected an object"),
        ({"accuracy": 0.99}, "accuracy: found 0.99, expected an object"),
        ({"accuracy": {"min_relative": "0.99"}}, "accuracy.min_relative: found '0.99', expected a number at least 0 and at most 1"),
        ({"accuracy": {"min_relative": True}}, "accuracy.min_relative: found true, expected a number at least 0 and at most 1"),
        (
            {"accuracy": {"metric": 1}},
            "accuracy.metric: found 1, expected one of top1, top5, agreement, cosine, closeness, fidelity, nmse, psnr, kl, token_f1, "
            "span_f1, decisions, average_precision, detections, mean_iou, exact_match, edit_similarity, ctc_exact_match, "
            "ctc_edit_similarity, retrieval, regression, r2, ssim, si_snr, custom",
        ),
        ({"batch_size": 2.0}, "batch_size: found 2.0, expected a whole number at least 1 and at most 65536"),
        ({"batch_size": None}, "batch_size: found null, expected a whole number at least 1 and at most 65536"),
        ({"target": 3}, "target: found 3, expected a text that is not empty"),
        ({"target": " "}, "target: found ' ', expected a text that is not empty"),
        ({"precisions": "int8"}, "precisions: found 'int8', expected a list"),
        (
            {"precisions": ["int7"]},
            "precisions[0]: found 'int7', expected one of fp32, fp16, bf16, int8, int8_dynamic, int8_weights, int4_weights, fp8, int4",
        ),
        ({"outputs": ["logits"]}, "outputs: found ['logits'], expected an object"),
        ({"shapes": {"x": {"min": [1], "opt": [1.5], "max": [2]}}}, "shapes.x.opt[0]: found 1.5, expected a whole number at least 1"),
        ({"search": {"seed": "0"}}, "search.seed: found '0', expected a whole number at least 0 and at most 4294967295"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(data: object, detail: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json(data)
    assert caught.value.detail == detail
    assert caught.value.fix


@pytest.mark.parametrize(
    ("data", "detail", "fix"),
    [
        ({"accuracy": {"min_relative": 1.5}}, "accuracy.min_relative: found 1.5", "at least 0 and at most 1"),
        ({"accuracy": {"min_relative": 99.99}}, "accuracy.min_relative: found 99.99", "Write it as a fraction: 0.9999 for 99.99%."),
        ({"accuracy": {"min_relative": -0.1}}, "accuracy.min_relative: found -0.1", "at least 0 and at most 1"),
        ({"accuracy": {"min_relative": float("nan")}}, "accuracy.min_relative: found nan", "at least 0"),
        ({"accuracy": {"max_nmse": 0}}, "accuracy.max_nmse: found 0", "above 0"),
        ({"accuracy": {"max_nmse": float("inf")}}, "accuracy.max_nmse: found inf", "above 0"),
        ({"accuracy": {"confidence": 95}}, "accuracy.confidence: found 95", "0.95 for 95%"),
        ({"accuracy": {"confidence": 1}}, "accuracy.confidence: found 1", "below 1"),
        ({"accuracy": {"confidence": 0.05}}, "accuracy.confidence: found 0.05", "at least 0.5"),
        ({"batch_size": 0}, "batch_size: found 0", "at least 1"),
        ({"threads": 0}, "threads: found 0", "at least 1"),
        ({"threads": 10**400}, "threads: found 1000000", "at most 1024"),
        ({"accuracy": {"max_nmse": 10**400}}, "accuracy.max_nmse: found 1000000", "above 0"),
        ({"search": {"max_trials": 0}}, "search.max_trials: found 0", "at least 1"),
        ({"search": {"max_seconds": 0}}, "search.max_seconds: found 0", "above 0"),
        ({"builder": {"optimization_level": 6}}, "builder.optimization_level: found 6", "at most 5"),
        ({"builder": {"workspace_mb": 0}}, "builder.workspace_mb: found 0", "at least 1"),
        ({"builder": {"optimisation_level": 2}}, "builder: found the unknown key 'optimisation_level'", "`optimization_level`"),
        (
            {"builder": {"optimization_level": 2, "search_optimization_level": 3}},
            "builder: search_optimization_level: found 3, expected at most optimization_level, 2",
            "Lower search_optimization_level",
        ),
        (
            {"builder": {"profiles": [{"min": 1, "opt": 1, "max": 1}, {"min": 2, "opt": 1, "max": 4}]}},
            "builder.profiles[1]: found min 2, opt 1, max 4, expected min <= opt <= max",
            "in order",
        ),
        ({"search": {"orders": []}}, "search.orders: found an empty list", "Leave the key out"),
        ({"search": {"orders": ["loss", "loss"]}}, "search.orders: found ['loss', 'loss']", "twice"),
        ({"search": {"orders": ["lost"]}}, "search.orders[0]: found 'lost'", "Did you mean 'loss'?"),
        ({"precisions": []}, "precisions: found an empty list", "Leave the key out"),
        ({"outputs": {"y": "logit"}}, "outputs.y: found 'logit'", "Did you mean 'logits'?"),
        ({"accuracy": {"metric": "agrement"}}, "accuracy.metric: found 'agrement'", "Did you mean 'agreement'?"),
        ({"precisions": ["int8-dynamic"]}, "precisions[0]: found 'int8-dynamic'", "Did you mean 'int8_dynamic'?"),
        ({"accuracy": {"metric": "IoU"}}, "accuracy.metric: found 'IoU'", "Did you mean 'mean_iou'?"),
        ({"accuracy": {"metric": "cosine_similarity"}}, "accuracy.metric: found 'cosine_similarity'", "Did you mean 'cosine'?"),
        ({"calibration": {"method": "min-max"}}, "calibration.method: found 'min-max'", "Did you mean 'minmax'?"),
        ({"shapes": {"x": {"min": [0], "opt": [1], "max": [1]}}}, "shapes.x.min[0]: found 0", "at least 1"),
        ({"shapes": {"x": {"min": [1], "opt": [1]}}}, "shapes.x: `max` is missing", "Give all of min, opt, max"),
        (
            {"shapes": {"x": {"min": [1], "opt": [4], "max": [2]}}},
            "shapes.x: found min [1], opt [4], max [2], expected min <= opt <= max",
            "in order",
        ),
        ({"shapes": {"x": {"min": [1], "opt": [1, 2], "max": [1]}}}, "expected equally many axes", "every axis"),
    ],
)
def test_a_value_out_of_range_is_refused(data: object, detail: str, fix: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json(data)
    assert detail in caught.value.detail
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("accuracy", "detail"),
    [
        ({"min_relative": 0.99, "max_nmse": 0.1}, "found min_relative and max_nmse, expected one budget"),
        ({"metric": "nmse"}, "the metric nmse needs `max_nmse`"),
        ({"metric": "psnr"}, "the metric psnr needs `min_psnr`"),
        ({"metric": "nmse", "min_relative": 0.99}, "found the metric nmse with min_relative, expected max_nmse"),
        ({"metric": "top1", "max_nmse": 0.1}, "found the metric top1 with max_nmse, expected min_relative"),
    ],
)
def test_budgets_that_contradict_the_metric_are_refused(accuracy: dict[str, object], detail: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"accuracy": accuracy})
    assert caught.value.detail.startswith(f"accuracy: {detail}")


def test_an_absolute_budget_implies_its_metric() -> None:
    assert config_from_json({"accuracy": {"max_nmse": 0.01}}).accuracy.metric is Metric.NMSE
    accuracy = config_from_json({"accuracy": {"min_psnr": 40}}).accuracy
    assert (accuracy.metric, accuracy.budget, accuracy.min_relative) == (Metric.PSNR, Budget(min_psnr=40.0), None)


def test_precisions_beyond_the_target_are_refused() -> None:
    config = config_from_json({"precisions": ["int8", "fp8"]})
    require_precisions(config, [Precision.FP32, Precision.INT8, Precision.FP8])
    with pytest.raises(InvalidConfigError, match=r"precisions\[1\]: found fp8, expected one of fp32, int8, which onnxruntime-cpu supports"):
        require_precisions(config, [Precision.FP32, Precision.INT8])
    require_precisions(Config(), [Precision.FP32])


def test_a_precision_that_the_named_gpu_lacks_is_refused_with_its_name() -> None:
    config = config_from_json({"target": "tensorrt-rtx", "gpu": "RTX 3090", "precisions": ["fp8"]})
    with pytest.raises(InvalidConfigError, match="which tensorrt-rtx supports on RTX 3090") as caught:
        require_precisions(config, [Precision.FP16, Precision.INT8])
    assert "another GPU or target" in caught.value.fix


def test_a_long_value_is_not_echoed_whole() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"target": ["x" * 10_000]})
    assert len(caught.value.detail) < 200
    with pytest.raises(InvalidConfigError) as caught:
        config_from_json({"x" * 10_000: 1})
    assert len(caught.value.detail) < 200


def test_the_schema_names_every_field_with_its_limits_and_default() -> None:
    schema = json_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == [field.name for field in dataclasses.fields(Config)]
    assert schema["additionalProperties"] is False
    assert properties["batch_size"]["minimum"] == 1
    assert properties["batch_size"]["default"] == 1
    assert properties["accuracy"]["properties"]["metric"]["anyOf"][0]["enum"] == [metric.value for metric in Metric]
    assert properties["accuracy"]["default"]["min_relative"] == 0.99
    assert properties["shapes"]["additionalProperties"]["required"] == ["min", "opt", "max"]
    json.dumps(schema, allow_nan=False)
