"""What probes compare in the place of labels: the scores that an ArgMax chose them from.

A probe changes one layer. That moves scores, and seldom a label, so that labels alone would call most layers free. Engines give labels
only and are judged by them; the loss of a probe comes from the scores, which the float model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx

from calibration.accuracy.kinds.part import Part
from calibration.accuracy.metrics import OutputKind
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
