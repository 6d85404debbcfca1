"""Layers alone with nothing but their weight rounded."""

from __future__ import annotations

import numpy as np

from calibration.accuracy.metrics import OutputKind
from calibration.algorithms.bias_correction import bias_locations
from calibration.algorithms.smooth_quant import multiplied
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from calibration.sensitivity.task_losses import losses
from tests.calibration.sensitivity.test_output_shifts import case
from tests.probed_models import probe_of

KINDS = (OutputKind.VALUES,)


def test_the_loss_of_a_rounded_weight_is_that_of_the_layer_with_it_and_its_means_kept() -> None:
    found = case()
    reference = found.reference()
    means = MeanInputs(reference, bias_locations(found.model, found.layers), [found.feeds])
    layers = [layer for layer in found.layers if layer.weight is not None]
    trials = [RangeTrial(LayerPrecision(layer.name, Precision.INT8), is_of_weight=True) for layer in layers]
    for taken in (None, means):
        measured = measure_trials(reference, KINDS, trials, [found.feeds], means=taken)
        for index, layer in enumerate(layers):
            weight, smooth_quant = reference.rounded_weight(layer, Precision.INT8), reference.smooth_quant(layer)
            if smooth_quant is not None:
                weight = multiplied(weight, layer, smooth_quant.factor)
            shift = None if taken is None else taken.shift(layer, weight - reference.weight(layer))
            probe = probe_of(reference, found.feeds, layer)
            expected = losses(KINDS, probe.run.outputs, probe.outputs_from(probe.output(weight=weight, shift=shift)))
            np.testing.assert_allclose(measured[:, index], expected, rtol=1e-4, atol=1e-12)


def test_a_layer_whose_activations_are_clipped_loses_little_by_its_weight() -> None:
    found = case()
    names = [layer.name for layer in found.layers if layer.weight is not None]
    trials = [RangeTrial(LayerPrecision(name, Precision.INT8), is_of_weight=alone) for alone in (False, True) for name in names]
    whole, weight = np.split(measure_trials(found.reference(), KINDS, trials, [found.feeds]).mean(axis=0), 2)
    assert (weight < 0.1 * whole).all()
