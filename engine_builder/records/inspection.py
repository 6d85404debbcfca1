"""What the first stage finds out about a job, and every later one builds on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.codec import value_from_json
from calibration.data.sample_axes import SampleAxes
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Precision, Scheme
from engine_builder.config.config import ShapeRange
from engine_builder.records.float_plan import BaselineRepair
from engine_builder.records.probed_outputs import ProbedOutputs
from engine_builder.workspace.workspace import FileRef, StageContext


@dataclass(frozen=True, slots=True)
class Inspection:
    """The job's model and data, checked and in the form that the other stages read.

    Scores are always against the user's model in float32. The *baseline* is what an engine must beat in time: the user's own file, or the
    prepared model where the runtime cannot load that file. The two differ where the file computes in half precision.
    """

    prepared: FileRef  # the prepared model
    float_type: Precision  # of the user's own weights
    baseline_type: Precision  # what the baseline computes in
    notes: tuple[str, ...]  # what was changed or decided, in the user's words
    layers: tuple[Layer, ...]
    kinds: tuple[OutputKind, ...]  # of each output
    metric: Metric
    scored: tuple[int, ...]  # which of the compared outputs the metric reads
    calibration: FileRef
    calibration_samples: int
    validation: FileRef
    validation_samples: int
    held_out: bool  # the validation samples were taken out of the calibration file
    shared_data: bool  # calibration and validation are the same file: accuracy is measured on samples that ranges were fitted to
    reference: FileRef  # the compared outputs of the float32 model on the validation set, arrays "0", "1", ...
    scores: FileRef  # the float32 model's own score on each validation sample, array "scores"
    baseline_scores: FileRef  # the baseline's, array "scores"
    axes: SampleAxes  # where the model counts samples
    probed: ProbedOutputs  # what probes compare in the place of the outputs
    timing_shapes: Mapping[str, tuple[int, ...]]  # shape of each input in one timed call
    timing_batch: int  # samples in one timed call
    engine_shapes: Mapping[str, ShapeRange]  # what an engine accepts of each input with an open axis, where engines have such limits
    scoring_batch: int  # samples in one call when an engine's accuracy is measured
    batch: int  # samples in one call when the float model runs or layers are probed
    is_batch_fixed: bool  # every call has ``batch`` samples, no more and no fewer: the model takes no others, or another answer comes of it
    sample_seconds: float  # one forward pass of the float model for one sample, at ``batch``, one thread
    scheme: Scheme  # how the job's engines round

    output_names: tuple[str, ...] = ()  # of each output
    weights: tuple[float, ...] = ()  # of each output in the loss; empty: all weigh the same
    label_names: tuple[str, ...] = ()  # of the classes that token_f1 and span_f1 compare
    metric_model: FileRef | None = None  # the user's own metric
    metric_outputs: tuple[int, ...] = ()  # ignored outputs that the user's own metric reads
    float_nodes: Mapping[str, Precision] = field(default_factory=dict)  # nodes of the baseline in another type than ``baseline_type``
    baseline_repair: BaselineRepair | None = None  # how the baseline came to differ from the target's own
    warnings: tuple[str, ...] = ()  # what is likely wrong with the user's data, and the one thing to try
    baseline_reached: FileRef | None = None  # what each layer of a repaired baseline asked for and got, where the builder lists kernels

    @property
    def baseline_precisions(self) -> dict[str, Precision]:
        """What each layer has in the baseline, and in every engine that does not have it lower."""
        return {layer.name: self.float_nodes.get(layer.name, self.baseline_type) for layer in self.layers}

    @property
    def compared(self) -> tuple[int, ...]:
        """Which outputs are compared with the float model's: all that are not ignored, and those that the user's own metric reads."""
        return tuple(index for index, kind in enumerate(self.kinds) if kind is not OutputKind.IGNORE or index in self.metric_outputs)

    @property
    def compared_kinds(self) -> tuple[OutputKind, ...]:
        """The kinds of the compared outputs."""
        return tuple(self.kinds[index] for index in self.compared)

    @property
    def compared_weights(self) -> tuple[float, ...]:
        """The weights of the compared outputs."""
        return tuple(self.weights[index] for index in self.compared) if self.weights else ()


def read_inspection(request: Mapping[str, object], context: StageContext) -> Inspection:
    """Return the inspection that a later stage's request names."""
    return value_from_json(Inspection, context.workspace.read_json(value_from_json(FileRef, request["inspection"])))
