"""How many probes are in flight depends on what they hold, not on the machine alone."""

from __future__ import annotations

import numpy as np

from calibration.execution.float_pass import FloatPass
from calibration.sensitivity.perturbed_model import OUTPUT_COPIES, PROBES_BYTES, Pass
from tests.model_text import Array, cnn, samples_for
from tests.probed_models import probed

MANY = 64


def a_pass(largest_bytes: int, output_bytes: int) -> Pass:
    """Return a pass of one batch whose largest block and outputs are so large, in bytes."""
    found = probed(cnn(), samples_for(cnn(), 4))
    run = found.reference().begin(found.feeds)
    floats: FloatPass = run.floats
    floats.largest_bytes = largest_bytes
    output: Array = np.broadcast_to(np.int8(0), (output_bytes,))
    return Pass(run.model, floats, run.made, (output,), run.samples)


def test_small_probes_keep_all_workers_busy() -> None:
    assert a_pass(1 << 20, 4096).at_once(MANY) == 62  # twice a megabyte, and 40 KB of copies of the outputs, in 128


def test_large_activations_leave_room_for_few() -> None:
    assert a_pass(PROBES_BYTES // 6, 0).at_once(MANY) == 3
    assert a_pass(PROBES_BYTES // 6, 0).at_once(2) == 2


def test_large_outputs_count_as_often_as_they_are_copied() -> None:
    assert a_pass(0, PROBES_BYTES // OUTPUT_COPIES // 4).at_once(MANY) == 4


def test_one_probe_is_in_flight_however_large_it_is() -> None:
    assert a_pass(10 * PROBES_BYTES, 0).at_once(MANY) == 1


def test_a_pass_knows_its_largest_block() -> None:
    found = probed(cnn(), samples_for(cnn(), 4))
    run = found.reference(1).begin(found.feeds)

    blocks = [{name: value for name, value in inside.items() if name not in found.feeds} for inside, _ in run.floats.walk()]
    assert 0 < run.floats.largest_bytes <= max(sum(value.nbytes for value in inside.values()) for inside in blocks)
