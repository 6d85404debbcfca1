"""What the first stage found out about a job, in parts: each stage's request names the part that the stage reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from calibration.accuracy.kinds.part import JudgedOutput, Part
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import Metric, OutputKind
from calibration.data.sample_axes import SampleAxes
from calibration.graph.layers import Layer
from calibration.graph_passes.folding.folded_steps import FoldedSteps
from calibration.number_formats.precision import Precision, Scheme
from calibration.sensitivity.task_losses import LossForm
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.records.closed_loop import ClosedLoop
from engine_builder.records.float_plan import BaselineFallback
from engine_builder.records.probed_outputs import ProbedOutputs, forms_of
from engine_builder.workspace.workspace import FileRef


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of the model, in its order."""

    names: tuple[str, ...]
    kinds: tuple[OutputKind, ...]
    weights: tuple[float, ...] = ()  # of each in the loss; empty: all weigh the same
    for_metric: tuple[int, ...] = ()  # ignored outputs that the metric reads
    parts: tuple[tuple[Part, ...], ...] = ()  # of each in the loss; none: it is that of the kind

    @property
    def compared(self) -> tuple[int, ...]:
        """Which are compared with the float model's: all that are not ignored, and those that the metric reads."""
        return tuple(index for index, kind in enumerate(self.kinds) if kind is not OutputKind.IGNORE or index in self.for_metric)

    @property
    def compared_kinds(self) -> tuple[OutputKind, ...]:
        """The kinds of the compared outputs."""
        return tuple(self.kinds[index] for index in self.compared)

    @property
    def compared_forms(self) -> tuple[LossForm, ...]:
        """What the loss of each compared output is made of."""
        places = {index: place for place, index in enumerate(self.compared)}
        parts = [tuple(replace(part, beside=tuple(places[index] for index in part.beside)) for part in own) for own in self.parts]
        forms = forms_of(self.kinds, parts)
        return tuple(forms[index] for index in self.compared)

    @property
    def compared_weights(self) -> tuple[float, ...]:
        """The weights of the compared outputs."""
        return tuple(self.weights[index] for index in self.compared) if self.weights else ()


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """The float model as the probes read it: nothing that was timed, and nothing that the accuracy budget or the search may change.

    Its file is a part of the key under which measurements are kept, so that a field here is a reason to measure again.
    """

    file: FileRef  # the model, legal for onnxruntime and with constants folded
    float_type: Precision  # of the user's own weights
    layers: tuple[Layer, ...]
    outputs: ModelOutputs
    probed: ProbedOutputs  # what probes compare in the place of the outputs
    axes: SampleAxes  # where the model counts samples
    batch: int  # samples in one call when the float model runs or layers are probed
    is_batch_fixed: bool  # every call has ``batch`` samples, no more and no fewer: the model takes no others, or another answer comes of it
    scheme: Scheme  # how the job's engines round


@dataclass(frozen=True, slots=True)
class Samples:
    """The user's data, checked, in files of ``CalibrationSet.save``."""

    calibration: FileRef
    calibration_samples: int
    validation: FileRef
    validation_samples: int
    held_out: bool  # the validation samples were taken out of the calibration file
    shared_data: bool  # calibration and validation are the same file: accuracy is measured on samples that ranges were fitted to


@dataclass(frozen=True, slots=True)
class Reference:
    """The float32 model's own answers on the validation set, and how an engine's are scored against them."""

    outputs: FileRef  # the compared outputs, arrays "0", "1", ...
    scores: FileRef  # its own score on each sample, array "scores"
    metric: Metric
    scored: tuple[int, ...]  # which of the compared outputs the metric reads
    label_names: tuple[str, ...] = ()  # of the classes that token_f1 and span_f1 compare
    metric_model: FileRef | None = None  # the user's own metric
    judged: tuple[JudgedOutput, ...] = ()  # how each compared output is taken, and why
    measure: MeasureOptions = field(default_factory=MeasureOptions)  # how the metric reads the outputs


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an engine must beat in time: the user's own file, or the prepared model where the runtime cannot load that.

    Scores are always against the user's model in float32. The two differ where the baseline computes in half precision.
    """

    precision: Precision  # what it computes in
    scores: FileRef  # its own, array "scores"
    float_nodes: Mapping[str, Precision] = field(default_factory=dict)  # nodes in another type than ``precision``
    fallback: BaselineFallback | None = None  # how it came to differ from the target's own
    achieved: FileRef | None = None  # what each layer with a fallback asked for and got, where the builder lists kernels


@dataclass(frozen=True, slots=True)
class Calls:
    """How engines are called when they are timed and when they are scored."""

    timed_shapes: Mapping[str, tuple[int, ...]]  # of each input in one timed call
    timed_batch: int  # samples in one timed call
    scored_batch: int  # samples in one call when an engine's accuracy is measured
    engine_shapes: Mapping[str, ShapeRange]  # what an engine accepts of each input with an open axis, where engines have such limits
    engine_values: Mapping[str, ValueRange] = field(default_factory=dict)  # and of each small input of integers that may set sizes
    engine_profiles: tuple[
        Mapping[str, ShapeRange], ...
    ] = ()  # as ``engine_shapes``, where the user asked for several; in the plan's order


@dataclass(frozen=True, slots=True)
class Inspection:
    """The job's model and data, checked and in the form that the other stages read."""

    model: PreparedModel
    samples: Samples
    reference: Reference
    baseline: Baseline
    calls: Calls
    loop: ClosedLoop | None = None  # how the validation samples are run where they are sequences
    notes: tuple[str, ...] = ()  # what was changed or decided, in the user's words
    warnings: tuple[str, ...] = ()  # what is likely wrong with the user's data, and the one thing to try
    folded: tuple[FoldedSteps, ...] = ()  # constants of the user's model that are parts of its layers now

    @property
    def state_outputs(self) -> frozenset[str]:
        """Names of the outputs that are a state and are judged by what they do to the others: no metric reads them."""
        if self.loop is None:
            return frozenset()
        compared = self.model.outputs.compared
        read = {compared[index] for index in self.reference.scored}
        return frozenset(self.model.outputs.names[index] for index in self.loop.states.values() if index not in read)

    @property
    def baseline_precisions(self) -> dict[str, Precision]:
        """What each layer has in the baseline, and in every engine that does not have it lower."""
        return {layer.name: self.baseline.float_nodes.get(layer.name, self.baseline.precision) for layer in self.model.layers}
