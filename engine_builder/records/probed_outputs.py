"""What probes compare in the place of labels: the scores that an ArgMax chose them from.

A probe changes one layer. That moves scores, and seldom a label, so that labels alone would call most layers free. Engines give labels
only and are judged by them; the loss of a probe comes from the scores, which the float model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx

from calibration.accuracy.kinds.part import JudgedOutput, Part
from calibration.accuracy.metrics import CLASSES, Metric, OutputKind
from calibration.data.sample_axes import OutputAxis, SampleAxes
from calibration.sensitivity.task_losses import LossForm

_SAME_SHAPE = frozenset({"Cast", "Identity"})


@dataclass(frozen=True, slots=True)
class ProbedOutputs:
    """The tensors of the prepared model that probes compare, one for each output of the model."""

    names: tuple[str, ...]
    kinds: tuple[OutputKind, ...]
    axes: SampleAxes
    parts: tuple[tuple[Part, ...], ...] = field(default=())  # of each, whose losses are added; none: the loss is that of the kind

    @property
    def forms(self) -> tuple[LossForm, ...]:
        """What the loss of each is made of."""
        return forms_of(self.kinds, self.parts)


def forms_of(kinds: Sequence[OutputKind], parts: Sequence[tuple[Part, ...]]) -> tuple[LossForm, ...]:
    """Return what the loss of each output is made of: its parts where it has some, else its kind."""
    return tuple(own or kind for kind, own in zip(kinds, parts or ((),) * len(kinds), strict=True))


def in_loss(
    kinds: Sequence[OutputKind], compared: Sequence[int], judged: Sequence[JudgedOutput], metric: Metric
) -> tuple[tuple[OutputKind, ...], tuple[tuple[Part, ...], ...]]:
    """Return the kind of each output of the model in the loss, and its parts where the loss is that of several.

    Args:
        kinds: Of each output by rules 1 to 3.
        compared: Which are compared with the float model's.
        judged: How each of these is judged.
        metric: The job's.
    """
    taken = {index: one for index, one in zip(compared, judged, strict=True) if kinds[index] is not OutputKind.IGNORE}
    places = {one.name: index for index, one in zip(compared, judged, strict=True)}
    parts = {
        index: tuple(
            replace(part, beside=(places[one.together.names[1]],))
            if one.together is not None and part.kind is OutputKind.DETECTIONS
            else part
            for part in loss_parts(one, metric)
        )
        for index, one in taken.items()
    }
    return (
        tuple(loss_kind(taken[index], kind, metric) if index in taken else kind for index, kind in enumerate(kinds)),
        tuple(parts.get(index, ()) for index in range(len(kinds))),
    )


def loss_parts(judged: JudgedOutput, metric: Metric) -> tuple[Part, ...]:
    """Return the parts whose losses probes add; none where the loss of the kind alone fits.

    A metric that measures in one way decides what an output is; only what shares a tensor with another scale stays apart.

    Args:
        judged: How the output is judged.
        metric: The job's.
    """
    is_parted = judged.is_mixed or (metric.spec.is_by_kind and not judged.is_plain)
    return judged.parts if is_parted else ()


def loss_kind(judged: JudgedOutput, by_structure: OutputKind, metric: Metric) -> OutputKind:
    """Return the kind of an output in the loss: by its values too, unless a metric that compares no classes was asked for.

    Of detections in several outputs the loss is that of boxes and scores: classes and numbers of rows jump.
    """
    if metric.spec.is_by_kind and judged.together is not None and judged.name in judged.together.members[2:]:
        return OutputKind.IGNORE
    is_regression = metric in (Metric.REGRESSION, Metric.R2) and judged.kinds == (OutputKind.REGRESSION,)
    return judged.kinds[0] if metric.spec.is_by_kind or metric.spec.kinds == CLASSES or is_regression else by_structure


def probed_outputs(
    model: onnx.ModelProto,
    names: Sequence[str],
    kinds: Sequence[OutputKind],
    axes: SampleAxes,
    parts: Sequence[tuple[Part, ...]] = (),
) -> ProbedOutputs:
    """Return the outputs as they are, but for labels from an ArgMax their scores.

    Args:
        model: The prepared model; its big weights may be missing.
        names: Of its outputs.
        kinds: Of each.
        axes: Where each counts samples.
        parts: Of each, none where the loss of its kind fits.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    values = {value.name: value for value in (*model.graph.input, *model.graph.value_info)}
    probed = []
    for name, kind, axis in zip(names, kinds, axes.outputs or (OutputAxis(),) * len(names), strict=True):
        node = producer.get(name)
        while node is not None and node.op_type in _SAME_SHAPE:
            node = producer.get(node.input[0])
        of_scores = None
        if kind is OutputKind.LABELS and node is not None and node.op_type == "ArgMax":
            of_scores = _scores_axis(node, values.get(node.input[0]), axis)
        if of_scores is None:
            probed.append((name, kind, axis))
        else:
            assert node is not None  # it gave the scores
            probed.append((node.input[0], OutputKind.LOGITS, of_scores))
    return ProbedOutputs(
        tuple(name for name, _, _ in probed),
        tuple(kind for _, kind, _ in probed),
        SampleAxes(axes.inputs, tuple(axis for _, _, axis in probed)),
        tuple(parts),
    )


def _scores_axis(node: onnx.NodeProto, scores: onnx.ValueInfoProto | None, labels: OutputAxis) -> OutputAxis | None:
    """Return where the scores that an ArgMax reads count samples and classes; None where their form or type is not known.

    Args:
        node: The ArgMax.
        scores: What it reads.
        labels: Where its output counts samples.
    """
    if scores is None or not scores.type.tensor_type.HasField("shape") or scores.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return None
    given = {attribute.name: int(attribute.i) for attribute in node.attribute}
    rank = len(scores.type.tensor_type.shape.dim)
    classes = given.get("axis", 0) % rank
    axis = labels.axis
    if axis is not None and not given.get("keepdims", 1) and axis >= classes:
        axis += 1
    return replace(labels, axis=axis, classes=None if classes == rank - 1 else classes)
