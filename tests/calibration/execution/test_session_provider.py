"""Which provider sessions compute with, on a machine that only says that it has CUDA."""

from __future__ import annotations

import logging
import resource

import numpy as np
import onnxruntime as ort
import pytest

from calibration.accuracy.metrics import OutputKind
from calibration.errors import CalibrationError
from calibration.execution.onnxruntime_session import CUDA_OPTIONS, Piece, probe_provider
from calibration.execution.provider import Provider
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.perturbed_model import ReferenceModel
from tests.cuda_machine import CPU, CUDA, Machine
from tests.cuda_machine import machine as machine  # a fixture
from tests.model_text import cnn, model_from_text, samples_for
from tests.probed_models import probed


def piece(provider: Provider = Provider.CUDA) -> Piece:
    return Piece(model_from_text("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }", {}), provider=provider)


def test_probes_run_on_cuda_where_it_is_there_and_works(machine: Machine) -> None:
    assert probe_provider() is Provider.CUDA
    case = probed(cnn(), samples_for(cnn(), 4))
    machine.asked.clear()
    reference = case.reference()
    layer_precisions = [LayerPrecision(layer.name, Precision.INT8) for layer in case.layers]
    measure_layer_losses(reference, [OutputKind.LOGITS], layer_precisions, [case.feeds])
    assert reference.provider is Provider.CUDA
    assert len(machine.asked) == reference.sessions + 1  # and the one that tries the provider
    assert all(wanted == [(CUDA, CUDA_OPTIONS), CPU] for wanted in machine.asked)


def test_cuda_computes_in_full_float32_and_the_same_way_each_time(machine: Machine) -> None:
    piece()
    (wanted,) = machine.asked
    assert wanted[0] == (CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT", "arena_extend_strategy": "kSameAsRequested"})
    assert machine.deterministic == [True]


def test_sessions_that_are_not_probes_stay_on_the_cpu(machine: Machine) -> None:
    assert Piece(model_from_text("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }", {})).provider is Provider.CPU
    assert machine.asked == [[CPU]]
    assert machine.deterministic == [False]


def test_a_session_that_cuda_refuses_opens_on_the_cpu(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.works = False
    with caplog.at_level(logging.WARNING):
        opened = piece()
    assert opened.provider is Provider.CPU
    assert "no kernel image" in caplog.text
    x = np.ones((3, 2), dtype=np.float32)
    np.testing.assert_array_equal(opened.run({"x": x})["y"], -x)
    assert machine.deterministic == [True, False]


@pytest.mark.parametrize("silent", [True, False])
def test_a_session_that_is_to_be_on_cuda_or_nowhere_says_why_it_is_not(machine: Machine, silent: bool) -> None:
    machine.works, machine.silent = False, silent
    model = model_from_text("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }", {})
    with pytest.raises(CalibrationError, match=r"CUDA does not take a part of the model: .*(no kernel image|opened without it)"):
        Piece(model, provider=Provider.CUDA, falls_back=False)
    assert machine.asked == [[(CUDA, CUDA_OPTIONS), CPU]]


def test_a_reference_model_whose_provider_was_chosen_never_mixes_it_with_another(machine: Machine) -> None:
    case = probed(cnn(), samples_for(cnn(), 4))
    machine.refused = b"Conv"
    assert ReferenceModel(case.model, case.layers, case.ranges, case.scheme).provider is Provider.CUDA  # and some pieces on the CPU
    with pytest.raises(CalibrationError, match="could not find an implementation"):
        ReferenceModel(case.model, case.layers, case.ranges, case.scheme, provider=Provider.CUDA)


@pytest.mark.parametrize("silent", [True, False])
def test_probes_run_on_the_cpu_where_cuda_does_not_work(machine: Machine, silent: bool) -> None:
    machine.works, machine.silent = False, silent
    assert probe_provider() is Provider.CPU


def test_probes_run_on_the_cpu_where_the_address_space_is_limited(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 33, 1 << 33) if kind == resource.RLIMIT_AS else (-1, -1))
    assert probe_provider() is Provider.CPU
    assert machine.asked == []


def test_probes_run_on_the_cpu_where_there_is_no_cuda(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    case = probed(cnn(), samples_for(cnn(), 4))
    machine.asked.clear()
    assert case.reference().provider is Provider.CPU
    assert all(wanted == [CPU] for wanted in machine.asked)


def test_the_provider_of_a_reference_model_may_be_chosen(machine: Machine) -> None:
    case = probed(cnn(), samples_for(cnn(), 4))
    machine.asked.clear()
    ReferenceModel(case.model, case.layers, case.ranges, case.scheme, provider=Provider.CPU)
    assert all(wanted == [CPU] for wanted in machine.asked)
