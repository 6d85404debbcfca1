"""What a model's outputs hold, which of them are compared with the float model's, and which the accuracy metric reads.

1. An output is compared if it holds floating-point values and has a part for each sample (``calls``) that an engine can change
   (``given_outputs``); others are ignored, and the report says so. Where no such output holds floating-point values, whole numbers and
   truth values are labels, decisions of the model, that are compared.
2. Its kind is the user's word (``outputs``), else that of the operator that ends it, past those that only move or cast values: Softmax
   gives probabilities; LogSoftmax, or a linear layer with one row of classes per sample, gives logits; all else is values.
3. With labels and no output of classes by rule 2, the first output with one row of several values per sample holds the classes; with
   labels of tokens, the first with one row of several values per token.
4. Metrics with labels read the first output of classes (of tokens, where those are labelled); agreement reads all outputs of classes, or
   all where there are none; the other metrics read all. A user's own metric reads what its inputs name.
5. Once the float model has run, its values tell more: the table of kinds (``calibration/accuracy/kinds/table.py``) says how each compared
   output is judged. Where the evidence leaves several kinds open, each is judged, and the worst counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

from calibration.accuracy.kinds.evidence import Evidence, endings
from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.kinds.rows.finding import joint_rows
from calibration.accuracy.kinds.table import judged_output, judged_together
from calibration.accuracy.labels import are_numbers
from calibration.accuracy.metrics import CLASSES, Metric, OutputKind
from calibration.data.sample_axes import OutputAxis, SampleAxes
from calibration.errors import InvalidConfigError, InvalidModelError
from calibration.execution.onnxruntime_session import Array
from calibration.onnx_model.foreign_types import FOREIGN
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.backends.base import Runner
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.config.schema import nearest
from engine_builder.evaluation.given_outputs import MOVING, given_outputs
from engine_builder.evaluation.model_calls import FoundOutput

_LINEAR = frozenset({"Gemm", "MatMul", "Conv"})
_NOT_COMPARED = ": it is not compared with the float model's"


class ComparedOutputs:
    """A runner that returns the compared outputs of another one, in the model's order, in samples-first form."""

    def __init__(self, runner: Runner, compared: Sequence[int], axes: SampleAxes | None = None) -> None:
        """Wrap an open runner, closing this one closes it; ``axes`` tell where the model counts samples, None: on first axes."""
        self._runner = runner
        self._compared = tuple(compared)
        self._axes = axes or SampleAxes()

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return the compared outputs of one call, each (samples, ...)."""
        return self._of(self._runner.run(feeds), feeds)

    def run_giving_back(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return the same; an engine on the processor gives back what activations took, where it is much."""
        run = self._runner.run_giving_back if isinstance(self._runner, OrtCpuRunner) else self._runner.run
        return self._of(run(feeds), feeds)

    def _of(self, outputs: tuple[Array, ...], feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        first = self._axes.samples_first(outputs, self._axes.samples(feeds))
        return tuple(first[index] for index in self._compared)

    def close(self) -> None:
        """Close the runner inside."""
        self._runner.close()


def output_kinds(
    model: onnx.ModelProto,
    specs: Sequence[TensorSpec],
    outputs: Sequence[FoundOutput],
    wanted: Mapping[str, OutputKind],
    *,
    is_labelled: bool,
    notes: list[str],
    tokens: int | None = None,
) -> tuple[OutputKind, ...]:
    """Return the kind of each output, by rules 1 to 3.

    Args:
        model: The prepared model; its big weights may be missing.
        specs: Its outputs.
        outputs: What running the model told of each.
        wanted: What the user said, by output name.
        is_labelled: Whether the validation set has a label per sample.
        notes: Told, in the user's words, which outputs are ignored and why.
        tokens: Tokens of a sample where the validation set has a label per token.

    Raises:
        InvalidConfigError: ``wanted`` names no output, or a kind that the output cannot have.
        InvalidModelError: No output can be compared.
    """
    check_output_names(specs, wanted)
    producer = {name: node for node in model.graph.node for name in node.output}
    given = given_outputs(model)
    foreign = {spec.name: "holds text, a sequence, a map or an optional value" for spec in specs if spec.dtype == FOREIGN}
    unfit = [foreign.get(spec.name) or given.get(spec.name) or output.unfit for spec, output in zip(specs, outputs, strict=True)]
    has_floats = any(why is None and _is_float(spec) for spec, why in zip(specs, unfit, strict=True))
    kinds, reasons = [], []
    for spec, output, cannot in zip(specs, outputs, unfit, strict=True):
        word = wanted.get(spec.name)
        why = cannot
        if why is None and not _is_float(spec) and (has_floats or word is not None) and word is not OutputKind.LABELS:
            why = f"holds {spec.dtype}, not floating-point values"
        if why is not None and word not in (None, OutputKind.IGNORE) and not (word is OutputKind.DETECTIONS and cannot is None):
            raise InvalidConfigError(
                f"outputs.{spec.name}: found {word}, expected ignore{_or_labels(spec, cannot)}: the output {why}",
                fix="Set it to ignore or leave it out.",
            )
        if word is OutputKind.LABELS and _is_float(spec):
            raise InvalidConfigError(
                f"outputs.{spec.name}: found labels, expected logits, probabilities, values or ignore: the output holds {spec.dtype}",
                fix="Call it logits or probabilities if it holds a score for each class.",
            )
        if why is not None and word is not OutputKind.DETECTIONS:
            reasons.append(f"output '{spec.name}' {why}")
        kinds.append(OutputKind.IGNORE if why is not None else word or _kind(spec, output.shape, producer))
    if all(kind is OutputKind.IGNORE for kind in kinds):
        found = "; ".join(reasons) or "all outputs are set to ignore"
        raise InvalidModelError(
            f"model: no output can be compared with the float model's: {found}",
            fix="Export the model without its noise, such as a Dropout in training mode, or with the noise as an input."
            if "random numbers" in found
            else "Export the model so that it returns its scores, before a selection such as NonMaxSuppression, with an axis of samples.",
        )
    notes.extend(f"{reason}{_NOT_COMPARED}" for reason in reasons)
    rows = [_is_row_of_classes(one.shape) if tokens is None else _is_row_per_token(one.shape, tokens) for one in outputs]
    is_found = any(kind in CLASSES and (is_row or tokens is None) for kind, is_row in zip(kinds, rows, strict=True))
    if (is_labelled or tokens is not None) and not is_found:  # rule 3
        for index, spec in enumerate(specs):
            if kinds[index] is OutputKind.VALUES and spec.name not in wanted and rows[index]:
                kinds[index] = OutputKind.LOGITS
                break
    return tuple(kinds)


def judged_outputs(
    model: onnx.ModelProto,
    names: Sequence[str],
    kinds: Sequence[OutputKind],
    reference: Sequence[Array],
    axes: Sequence[OutputAxis],
    wanted: Mapping[str, OutputKind],
    inputs: Mapping[str, Array],
    *,
    labels: Array | None,
) -> tuple[JudgedOutput, ...]:
    """Return how each compared output is judged, by rule 5.

    Args:
        model: The prepared model; its big weights may be missing.
        names: Of the compared outputs.
        kinds: Theirs by rules 1 to 3.
        reference: The float model's, each (samples, ...).
        axes: Where each counts samples.
        wanted: What the user said, by output name.
        inputs: Of the same samples, each (samples, ...).
        labels: Of the same samples, (samples, ...), where there are some.
    """
    ends = endings(model)
    has_classes = labels is not None and labels.dtype.kind in "iu"
    labelled = next((index for index, kind in enumerate(kinds) if has_classes and kind in CLASSES), None)
    shapes = tuple(array.shape[1:] for array in inputs.values())
    known = []
    for index, (name, values, axis) in enumerate(zip(names, reference, axes, strict=True)):
        end = ends[name]
        classes = None if end.class_axis is None else axis.place_first(end.class_axis)
        has_targets = labels is not None and are_numbers(labels) and labels.size == values.size and len(names) == 1
        known.append(Evidence(name, values, end, classes, shapes, has_targets, index == labelled))
    joint = joint_rows(known, wanted)
    found = []
    for evidence, kind in zip(known, kinds, strict=True):
        if joint is not None and evidence.name in joint[0].members:
            found.append(judged_together(evidence, *joint, reference[names.index(joint[0].names[1])]))
        else:
            found.append(judged_output(evidence, None if kind is OutputKind.IGNORE else wanted.get(evidence.name)))
    return tuple(found)


def rows_only(compared: Sequence[int], read: Sequence[int], judged: Sequence[JudgedOutput], metric: Metric | None) -> tuple[int, ...]:
    """Return the places, among the compared outputs, of those that are used: of whole numbers only what is a part of detections.

    Args:
        compared: Which outputs of the model.
        read: Those of them that are read although they hold whole numbers.
        judged: How each compared output is judged.
        metric: That the user names, None of none; one that does not judge by kind reads what it asked for.
    """
    if metric is not None and not metric.spec.is_by_kind:
        return tuple(range(len(compared)))
    return tuple(place for place, index in enumerate(compared) if index not in read or judged[place].together is not None)


def is_told_of_rows(note: str, judged: Sequence[JudgedOutput]) -> bool:
    """Return whether a note says that an output is not compared which is a part of detections."""
    return note.endswith(_NOT_COMPARED) and any(
        one.together is not None and note.startswith(f"output '{one.name}' holds ") for one in judged
    )


def default_metric(
    judged: Sequence[JudgedOutput], kinds: Sequence[OutputKind], *, is_labelled: bool, is_per_token: bool = False, hides: bool = False
) -> Metric:
    """Return the metric where the user names none.

    That is top1 with labels and an output of classes; agreement if each output surely holds one row of classes a sample, or one label, of
    which agreement can fail; closeness if each holds one score a sample; else fidelity.

    Args:
        judged: How the compared outputs are judged.
        kinds: Their kinds by rules 1 to 3.
        is_labelled: Whether the validation set has labels, one class a sample.
        is_per_token: Whether these are labels of tokens, which an output holds classes for: token_f1.
        hides: Whether an input takes positions out, which only fidelity leaves out.
    """
    if is_per_token:
        return Metric.TOKEN_F1
    if is_labelled and any(kind in CLASSES for kind in kinds):
        return Metric.TOP1
    read = [one for one, kind in zip(judged, kinds, strict=True) if kind is not OutputKind.IGNORE]
    if not hides and all(one.is_certain and one.is_plain and one.decisions == 1 and one.kinds[0] in CLASSES for one in read):
        return Metric.AGREEMENT
    return Metric.CLOSENESS if all(one.is_one_score for one in read) else Metric.FIDELITY


def scored_outputs(metric: Metric, kinds: Sequence[OutputKind]) -> tuple[int, ...]:
    """Return which of the compared outputs the metric reads, by rule 4.

    Args:
        metric: The metric.
        kinds: Kinds of the compared outputs.
    """
    read = tuple(index for index, kind in enumerate(kinds) if kind is not OutputKind.IGNORE) or tuple(range(len(kinds)))
    wanted = tuple(index for index in read if kinds[index] in metric.spec.kinds)
    if metric.needs_labels:
        return wanted[:1] or read[:1]
    return wanted or read


def check_metric(metric: Metric, scored: Sequence[Array], judged: Sequence[JudgedOutput] = ()) -> None:
    """Refuse a metric that is met whatever an engine returns, or that says nothing of what an output holds.

    Args:
        metric: The metric.
        scored: The outputs that it reads, each (samples, ...).
        judged: How these are judged by kind, where that is known.

    Raises:
        InvalidConfigError: Every score would be perfect by construction, or means nothing.
    """
    for one in judged if metric is Metric.KL else ():
        if one.kinds[0] is OutputKind.SCORES:
            raise InvalidConfigError(
                f"accuracy.metric: kl compares distributions over classes, found scores in 0..1, each by itself, in the output "
                f"'{one.name}' ({one.why})",
                fix="Set accuracy.metric to decisions or closeness; where they are a distribution, say so: "
                f'outputs: {{"{one.name}": "probabilities"}}.',
            )
    if metric.spec.of_single_values is not None and all(array.size == len(array) for array in scored):
        raise InvalidConfigError(
            f"accuracy.metric: {metric} compares directions, found outputs of one value per sample, which have none",
            fix="Leave accuracy.metric out: these are compared by closeness. Or use a metric model that compares with labels.",
        )
    top = metric.spec.top
    if top is not None and top > 1 and _classes(scored[0]) <= top:
        raise InvalidConfigError(
            f"accuracy.metric: {metric} is always right among {_classes(scored[0])} classes", fix="Set accuracy.metric to top1."
        )


def check_output_names(specs: Sequence[TensorSpec], wanted: Iterable[str]) -> None:
    """Refuse names of outputs that the model, whose outputs are ``specs``, does not have.

    Raises:
        InvalidConfigError: With the nearest name.
    """
    known = [spec.name for spec in specs]
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            raise InvalidConfigError(
                f"outputs: found '{name}', expected one of {', '.join(repr(item) for item in known)}",
                fix=f"Did you mean '{near}'?" if near else "Name an output of the model.",
            )


def _is_float(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind == "f"


def _or_labels(spec: TensorSpec, cannot: str | None) -> str:
    return " or labels" if cannot is None and not _is_float(spec) else ""


def _kind(spec: TensorSpec, shape: tuple[int, ...], producer: Mapping[str, onnx.NodeProto]) -> OutputKind:
    if not _is_float(spec):
        return OutputKind.LABELS
    node = producer.get(spec.name)
    while node is not None and node.op_type in MOVING:
        node = producer.get(node.input[0])
    if node is None:
        return OutputKind.VALUES
    if node.op_type == "Softmax":
        return OutputKind.PROBABILITIES
    is_linear = node.op_type in _LINEAR or (
        node.op_type == "Add" and any(name in producer and producer[name].op_type in _LINEAR for name in node.input)
    )
    return OutputKind.LOGITS if node.op_type == "LogSoftmax" or (is_linear and _is_row_of_classes(shape)) else OutputKind.VALUES


def _is_row_of_classes(shape: tuple[int, ...]) -> bool:
    return sum(size > 1 for size in shape[1:]) == 1


def _is_row_per_token(shape: tuple[int, ...], tokens: int) -> bool:
    return len(shape) == 3 and shape[1] == tokens and shape[2] > 1


def _classes(array: Array) -> int:
    return max(array.shape[1:], default=1)
