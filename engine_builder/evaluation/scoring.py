"""Scores the outputs of an engine by the job's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.kinds.evidence import of_rows
from calibration.accuracy.kinds.judging import counted_of
from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.labels import are_numbers, class_labels_from, one_for_each_sample
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.measures.tasks.decisions import largest_change
from calibration.accuracy.measures.tasks.retrieval import nearest_kept
from calibration.accuracy.metrics import Metric, OutputKind, Truth, names_in_words
from calibration.accuracy.own_metrics.opened import OwnMetric, open_own_metric
from calibration.accuracy.scores import score
from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError, InvalidMetricError
from calibration.execution.onnxruntime_session import Array
from calibration.onnx_model.foreign_types import FOREIGN
from calibration.onnx_model.model_io import TensorSpec
from engine_builder.config.accuracy import check_measure_options
from engine_builder.config.inspect_settings import InspectSettings
from engine_builder.evaluation.model_calls import FoundOutput
from engine_builder.evaluation.outputs import check_metric, default_metric, scored_outputs
from engine_builder.records.inspection import Inspection
from engine_builder.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Scorer:
    """The job's metric, and which of the compared outputs it reads."""

    metric: Metric
    scored: tuple[int, ...]
    names: tuple[str, ...]  # of the compared outputs
    weights: tuple[float, ...]  # of the compared outputs
    label_names: tuple[str, ...]
    custom: OwnMetric | None
    judged: tuple[JudgedOutput, ...] = ()  # how each compared output is taken
    options: MeasureOptions = field(default_factory=MeasureOptions)

    @property
    def unread(self) -> tuple[str, ...]:
        """Names of the compared outputs that say nothing of the score; a user's own metric says itself what it reads."""
        return () if self.custom is not None else tuple(name for index, name in enumerate(self.names) if index not in self.scored)

    def __call__(self, outputs: Sequence[Array], reference: Sequence[Array], samples: CalibrationSet) -> NDArray[np.float64]:
        """Return the score of each sample, (samples,).

        Args:
            outputs: The compared outputs of an engine, each (samples, ...).
            reference: The float model's.
            samples: What went in; its labels count.

        Raises:
            InputError: The metric does not fit the outputs or the labels.
        """
        if self.custom is not None:
            named, truth = (dict(zip(self.names, arrays, strict=True)) for arrays in (outputs, reference))
            return self.custom.score(named, truth, samples.labels)
        return score(
            self.metric,
            [outputs[index] for index in self.scored],
            [reference[index] for index in self.scored],
            samples.labels,
            weights=[self.weights[index] for index in self.scored],
            label_names=self.label_names,
            judged=[self.judged[index] for index in self.scored] if self.judged else (),
            inputs=samples.inputs,
            options=self.options,
        )

    def largest_change(self, outputs: Sequence[Array], reference: Sequence[Array]) -> float | None:
        """Return the largest change of a value that is scored, None where the metric does not ask for it; arguments as of a call."""
        joint = self.metric.spec.joint
        if joint is None or not joint.tells_change:
            return None
        return max(largest_change(reference[index], outputs[index]) for index in self.scored)

    def nearest_kept(self, outputs: Sequence[Array], reference: Sequence[Array]) -> float | None:
        """Return the share of samples that keep their nearest neighbour, of the output that may be an embedding and keeps fewest.

        None where no such output is judged by its values: a metric of classes, labels or neighbours says itself what counts. Arguments as
        of a call.
        """
        spec = self.metric.spec
        if spec.joint is not None or spec.truth is not Truth.REFERENCE or self.metric.compares_classes:
            return None
        read = [index for index in self.scored if self.judged and OutputKind.EMBEDDING in self.judged[index].kinds]
        vectors = [index for index in read if of_rows(reference[index].shape[1:]) == 1]
        shares = [share for index in vectors if (share := nearest_kept(reference[index], outputs[index])) is not None]
        return min(shares, default=None)

    def reading(self, reference: Sequence[Array]) -> str | None:
        """Return what the metric took the float model's compared outputs, each (samples, ...), for; None where there is nothing to say."""
        joint = self.metric.spec.joint
        words = None if joint is None else joint.words([reference[index] for index in self.scored], self.options)
        if words is None:
            return None
        names = " and ".join(f"'{self.names[index]}'" for index in self.scored)
        return f"the metric {self.metric} takes {names} for {words} (accuracy.measure says otherwise)"


def scorer_of(inspection: Inspection, workspace: Workspace) -> Scorer:
    """Return the scorer of an inspected job."""
    return Scorer(
        inspection.reference.metric,
        inspection.reference.scored,
        tuple(inspection.model.outputs.names[index] for index in inspection.model.outputs.compared),
        inspection.model.outputs.compared_weights,
        inspection.reference.label_names,
        None if inspection.reference.metric_model is None else open_own_metric(workspace.path(inspection.reference.metric_model)),
        inspection.reference.judged,
        inspection.reference.measure,
    )


def new_scorer(
    settings: InspectSettings,
    names: Sequence[str],
    kinds: Sequence[OutputKind],
    reference: Sequence[Array],
    samples: CalibrationSet,
    custom: OwnMetric | None,
    judged: Sequence[JudgedOutput],
) -> Scorer:
    """Return the scorer of a job that is being inspected, its metric checked.

    Args:
        settings: The job's settings; without a metric the default is taken.
        names: Of the compared outputs.
        kinds: Of the compared outputs.
        reference: The float model's compared outputs, each (samples, ...).
        samples: The validation set.
        custom: The user's own metric.
        judged: How each compared output is taken.

    Raises:
        InputError: The metric does not fit the outputs or the labels.
    """
    labels = samples.labels
    metric, options = settings.metric, settings.measure
    kept = [index for index, kind in enumerate(kinds) if kind is not OutputKind.IGNORE]
    per_token = [index for index in kept if is_per_token(reference[index], labels)]
    by_labels = _by_labels([reference[index] for index in kept], [judged[index] for index in kept], labels, options)
    if by_labels is not None and (metric is None or (metric is Metric.TOP1 and by_labels[0] is Metric.DECISIONS)):
        metric, options = by_labels
    if labels is not None and are_numbers(labels) and (metric is None or metric.spec.truth not in (Truth.GIVEN, Truth.OWN)):
        class_labels_from(labels, samples.samples, "labels")  # which they are not
    if metric is None:
        if labels is not None and labels.ndim > 1 and not per_token:
            raise InvalidCalibrationSetError(
                f"labels: shape (samples, {labels.shape[1]}) found, (samples,) expected: no output of the model holds classes of tokens",
                fix=one_for_each_sample(labels),
            )
        hides = any(counted_of(samples.inputs, array) is not None for array in reference)
        metric = default_metric(judged, kinds, is_labelled=is_per_sample(labels), is_per_token=bool(per_token), hides=hides)
    if settings.label_names is not None and not metric.is_per_token:
        raise InvalidConfigError(
            f"accuracy.label_names: found with the metric {metric}, expected {names_in_words(lambda one: one.is_per_token)}",
            fix="Leave label_names out, or give the validation set one label per token.",
        )
    check_measure_options(metric, options)
    joint = metric.spec.joint
    if joint is not None:
        scored = joint.reads(reference, options)
        joint.check([reference[index] for index in scored], options)
    else:
        scored = tuple(per_token[:1]) if metric.is_per_token and per_token else scored_outputs(metric, kinds)
        if metric.spec.is_by_kind:  # classes and counts of detections are judged with their boxes
            scored = tuple(index for index, one in enumerate(judged) if index in scored or one.together is not None)
    check_metric(metric, [reference[index] for index in scored], [judged[index] for index in scored])
    weights = tuple(settings.output_weights.get(name, 1.0) for name in names)
    if custom is not None:
        custom.check(dict(zip(names, reference, strict=True)), labels)
    return Scorer(metric, scored, tuple(names), weights, settings.label_names or (), custom, tuple(judged), options)


_NO_DECISIONS = frozenset({OutputKind.REGRESSION, OutputKind.VALUES, OutputKind.EMBEDDING})


def _by_labels(
    reference: Sequence[Array], judged: Sequence[JudgedOutput], labels: Array | None, options: MeasureOptions
) -> tuple[Metric, MeasureOptions] | None:
    """Return the metric that compares the only output with labels of another form than classes, where it is clear what they say.

    1. Numbers with fractions, one for each value: regression.
    2. 0 and 1, one for each score in 0..1: decisions, unless the user says that it is none. One value a sample on both sides of zero is a
       logit, decided at 0.

    Args:
        reference: The float model's compared outputs but ignored ones, each (samples, ...).
        judged: How they are taken.
        labels: Of the validation set.
        options: What the user says of the measure.
    """
    if labels is None or len(reference) != 1 or reference[0].dtype.kind != "f" or labels.size != reference[0].size:
        return None
    if are_numbers(labels):
        return Metric.REGRESSION, options
    if not np.isin(labels, (0, 1)).all() or (judged[0].is_said and judged[0].kinds[0] in _NO_DECISIONS):
        return None
    is_single = reference[0].size == len(reference[0])
    low, high = float(reference[0].min()), float(reference[0].max())
    if low >= 0.0 and high <= 1.0 and (is_single or judged[0].kinds[0] is OutputKind.SCORES):
        return Metric.DECISIONS, options
    if is_single and low < 0.0 < high:
        return Metric.DECISIONS, options if options.threshold is not None else replace(options, threshold=0.0)
    return None


def unused_labels(scorer: Scorer, samples: CalibrationSet, reference: Sequence[Array]) -> str | None:
    """Return what to say where there are labels that the metric does not compare with; None where it does, or there are none.

    Args:
        scorer: Of the job.
        samples: The validation set.
        reference: The float model's compared outputs, each (samples, ...).
    """
    labels = samples.labels
    if labels is None or scorer.custom is not None or scorer.metric.spec.truth is not Truth.REFERENCE:
        return None
    fits = [index for index in scorer.scored if reference[index].dtype.kind == "f" and reference[index].size == labels.size]
    if fits:
        metric = Metric.DECISIONS if np.isin(labels, (0, 1)).all() else Metric.REGRESSION
        key = f"{metric} compares the values of '{scorer.names[fits[0]]}' with them"
        if len(scorer.names) > 1:
            key += " (and set outputs that it does not read to ignore, if nobody reads them)"
    else:
        key = f"{names_in_words(lambda one: one.needs_labels)} compare classes with them"
    return f"the validation labels are not used: {scorer.metric} compares with the float model; accuracy.metric: {key}"


def check_scores(metric: Metric, scores: NDArray[np.float64]) -> None:
    """Refuse a metric of the user's own, or labels, that any engine would keep.

    Args:
        metric: The metric.
        scores: The float model's own, (samples,).

    Raises:
        InvalidMetricError: All are 0, as for an error measure, where 0 is perfect.
        InvalidCalibrationSetError: The mean is not above 0, so that a share of it means nothing.
    """
    if metric.spec.truth is Truth.GIVEN and scores.mean() <= 0.0:
        raise InvalidCalibrationSetError(
            f"labels: the float model's {metric} on the validation samples is {scores.mean():.4g}, so that a share of it means nothing",
            fix="Check that each label belongs to its sample, in the form and the units of the model's output, or leave the labels out to "
            "compare with the float model.",
        )
    if metric.spec.truth is Truth.OWN and not scores.any():
        raise InvalidMetricError(
            "metric model: it scores the float model 0 on every validation sample, so that no engine could be worse; 1 is perfect",
            fix="Return a score where more is better, such as 1 - error.",
        )


def is_per_sample(labels: Array | None) -> bool:
    """Return whether these labels, (samples, ...), are one class index per sample."""
    return labels is not None and labels.dtype.kind in "iu" and labels.ndim == 1


def labelled_tokens(labels: Array | None) -> int | None:
    """Return how many tokens of a sample these labels, (samples, ...), give classes of; None where they are of another form."""
    return labels.shape[1] if labels is not None and labels.dtype.kind in "iu" and labels.ndim == 2 else None


def is_per_token(output: Array, labels: Array | None) -> bool:
    """Return whether an output, (samples, ...), holds a row of classes for each of the tokens that are labelled, or their labels."""
    if labels is None or labels.ndim != 2 or output.shape[1:2] != labels.shape[1:2]:
        return False
    return output.ndim == 2 if output.dtype.kind in "iu" else output.ndim == 3 and output.shape[2] > 1


def whole_outputs(
    settings: InspectSettings,
    names: Sequence[str],
    kinds: Sequence[OutputKind],
    specs: Sequence[TensorSpec],
    outputs: Sequence[FoundOutput],
) -> tuple[int, ...]:
    """Return which outputs of whole numbers the metric reads although they are not compared with the float model's: classes of detections.

    By default, and where each output is judged by its kind, these are outputs with as many rows as one of boxes has, and numbers of rows:
    what the values say of them is found once the float model has run (``calibration.accuracy.kinds.rows``).

    Args:
        settings: The job's settings.
        names: Of the model's outputs.
        kinds: Of the model's outputs.
        specs: Of the model's outputs.
        outputs: What running the model told of its outputs.
    """
    metric = settings.metric
    is_by_kind = metric is None or metric.spec.is_by_kind
    if metric is not None and not is_by_kind and (metric.spec.joint is None or not metric.spec.joint.reads_whole_numbers):
        return ()
    rows = {sizes[0] for one in outputs if len(sizes := _longer(one.shape)) == 2 and sizes[1] == 4}
    return tuple(
        index
        for index, name in enumerate(names)
        if kinds[index] is OutputKind.IGNORE
        and settings.output_kinds.get(name) is not OutputKind.IGNORE
        and outputs[index].unfit is None
        and specs[index].dtype != FOREIGN
        and np.dtype(specs[index].dtype).kind in "iu"
        and (not is_by_kind or (bool(rows) and (not (sizes := _longer(outputs[index].shape)) or (len(sizes) == 1 and sizes[0] in rows))))
    )


def _longer(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes above one of a sample's axes."""
    return tuple(size for size in shape[1:] if size != 1)


def outputs_for_metric(
    custom: OwnMetric,
    names: Sequence[str],
    kinds: Sequence[OutputKind],
    outputs: Sequence[FoundOutput],
    specs: Sequence[TensorSpec],
    *,
    is_labelled: bool,
) -> tuple[int, ...]:
    """Return which outputs the user's own metric reads although they are not compared with the float model's.

    ``names``, ``kinds``, ``outputs`` (what running the model told) and ``specs`` are of the model's outputs, in its order.

    Raises:
        InvalidMetricError: The metric reads something unknown, or an output without a part for each sample.
    """
    read = custom.read(names, is_labelled=is_labelled)
    if read is None:  # a function is given whatever there is for each sample
        ignored = (index for index, kind in enumerate(kinds) if kind is OutputKind.IGNORE and outputs[index].unfit is None)
        return tuple(index for index in ignored if specs[index].dtype != FOREIGN)
    found = tuple(index for index, name in enumerate(names) if name in read and kinds[index] is OutputKind.IGNORE)
    for index in found:
        if outputs[index].unfit is not None:
            raise InvalidMetricError(
                f"metric model: it reads the output '{names[index]}', which {outputs[index].unfit}; one with an axis of samples expected",
                fix="Score another output, or export the model with an axis of samples in this one.",
            )
    return found
