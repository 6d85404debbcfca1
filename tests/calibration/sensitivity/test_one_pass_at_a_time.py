"""Whatever probes the float model batch by batch lets go of a batch's activations before the next one is run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.algorithms.bias_correction import bias_locations
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.hessian_trace import measure_traces
from calibration.sensitivity.interactions import measure_pairs
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import Pass, ReferenceModel
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from tests.model_text import Array, cnn, samples_for
from tests.probed_models import Probed, probed

KINDS = (OutputKind.LOGITS,)
BATCHES, BATCH = 3, 4
Batches = Sequence[Mapping[str, Array]]


class WatchedModel(ReferenceModel):
    """Counts, whenever a pass begins, the activations of earlier ones that are still there."""

    left: list[int]
    _made: list[weakref.ref[Array]]

    def begin(self, batch: Mapping[str, Array]) -> Pass:
        self.left.append(sum(made() is not None for made in self._made))
        run = super().begin(batch)
        given = {id(array) for array in (*self.graph.matrices.values(), *self.graph.constant_outputs.values(), *batch.values())}
        self._made += [weakref.ref(array) for inside, _ in run.floats.walk() for array in inside.values() if id(array) not in given]
        return run


def _traces(model: ReferenceModel, found: Probed, batches: Batches) -> object:
    return measure_traces(model, KINDS, found.scheme, found.ranges, batches, seed=0, workers=2)


def _pairs(model: ReferenceModel, found: Probed, batches: Batches) -> object:
    first, second = (LayerPrecision(layer.name, Precision.INT8) for layer in found.layers[:2])
    alone = {one: np.zeros(BATCHES * BATCH) for one in (first, second)}
    return measure_pairs(model, KINDS, found.layers, [(first, second)], batches, alone, workers=2)


def _singles(model: ReferenceModel, found: Probed, batches: Batches) -> object:
    wanted = [LayerPrecision(layer.name, Precision.INT8) for layer in found.layers]
    return measure_layer_losses(model, KINDS, wanted, batches, workers=2)


def _trials(model: ReferenceModel, found: Probed, batches: Batches) -> object:
    wanted = [RangeTrial(LayerPrecision(layer.name, Precision.INT8)) for layer in found.layers]
    return measure_trials(model, KINDS, wanted, batches, workers=2)


def _means(model: ReferenceModel, found: Probed, batches: Batches) -> object:
    return MeanInputs(model, bias_locations(found.model, found.layers), batches)


@pytest.mark.parametrize("measure", [_traces, _pairs, _singles, _trials, _means])
def test_the_activations_of_one_pass_are_gone_when_the_next_begins(measure: Callable[[ReferenceModel, Probed, Batches], object]) -> None:
    found = probed(cnn(), samples_for(cnn(), BATCHES * BATCH))
    model = WatchedModel(found.model, found.layers, found.ranges, found.scheme, units_per_block=1)
    model.left, model._made = [], []
    batches = [{name: array[start : start + BATCH] for name, array in found.feeds.items()} for start in range(0, BATCHES * BATCH, BATCH)]
    measure(model, found, batches)
    assert model.left == [0] * BATCHES
    assert model._made
