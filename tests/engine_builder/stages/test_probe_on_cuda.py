"""Parts of the stages that probe, measured on CUDA: whole, checked against the CPU, and put together with parts of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from calibration.codec import as_object, json_from_value, value_from_json
from calibration.errors import CalibrationError
from calibration.execution.provider import Provider
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import TensorProbes
from engine_builder.pipeline.parts import SPLITS, on_provider
from engine_builder.pipeline.stage import Stage
from engine_builder.pipeline.stage_table import HESSIAN, INTERACTIONS, SENSITIVITY
from engine_builder.records.calibrated import Calibrated
from engine_builder.stage_io.measuring import HessianRequest, InteractionsRequest, SensitivityRequest
from engine_builder.workspace.workspace import FileRef
from tests.cuda_machine import CPU, CUDA, Array, Machine
from tests.cuda_machine import machine as machine  # a fixture
from tests.driver import Driver, ranged
from tests.model_text import fixed_batch, samples_for

SAMPLES = 16
STAGES = (SENSITIVITY, HESSIAN, INTERACTIONS)


@pytest.fixture
def job(tmp_path: Path) -> tuple[Driver, Calibrated]:
    """A model that takes one sample a call."""
    driver, job = ranged(tmp_path, fixed_batch(), samples_for(fixed_batch(), SAMPLES), samples_for(fixed_batch(), 16))
    return driver, job.calibrated


def request_of(driver: Driver, of: Calibrated, stage: Stage[Any, Any]) -> Mapping[str, object]:
    """Return the request of a whole stage, in JSON."""
    if stage is SENSITIVITY:
        asked: object = SensitivityRequest(of, 0, SAMPLES, batch=1)
    elif stage is HESSIAN:
        asked = HessianRequest(of, (Precision.INT8,), 1e-3, 0)
    else:
        losses = driver.run(SENSITIVITY, SensitivityRequest(of, 0, SAMPLES, provider=Provider.CPU)).losses
        asked = InteractionsRequest(of, (losses,), None, (0, SAMPLES), 1)
    return as_object(json_from_value(asked))


def result(driver: Driver, stage: Stage[Any, Any], request: Mapping[str, object]) -> dict[str, Any]:
    return dict(as_object(driver.run_json(stage, request)["result"]))


def content(driver: Driver, found: Mapping[str, Any]) -> object:
    """Return what a result says, and the bytes of its file, but for who measured it."""
    file = found.get("losses") or found.get("probes")
    rest = {name: value for name, value in found.items() if name not in {"providers", "losses", "probes"}}
    return rest, None if file is None else (driver.workspace.root / file["file"]).read_bytes()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_part_on_cuda_runs_there_as_a_whole_and_one_of_its_probes_on_the_cpu_again(
    job: tuple[Driver, Calibrated], machine: Machine, stage: Stage[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, of = job
    monkeypatch.setattr("calibration.sensitivity.perturbed_model.return_free_activations", lambda: None)  # a session on the CPU alone
    part = SPLITS[stage.name].parts(request_of(driver, of, stage), 2)[1]
    machine.asked.clear()
    on_cpu = result(driver, stage, on_provider(part, Provider.CPU))
    expected, sessions = content(driver, on_cpu), machine.count(CPU)
    assert machine.count(CUDA) == 0
    machine.asked.clear()
    on_cuda = result(driver, stage, on_provider(part, Provider.CUDA))
    assert (
        content(driver, on_cuda) == content(driver, on_cpu) == expected
    )  # the stand-in's kernels are the CPU's, and files lie side by side
    assert (on_cpu["providers"], on_cuda["providers"]) == ({CPU: 1}, {CUDA: 1})
    assert machine.count(CUDA) == sessions
    assert 0 < machine.count(CPU) <= sessions


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_kernels_that_add_in_another_order_are_accepted_and_wrong_ones_are_not(
    job: tuple[Driver, Calibrated], machine: Machine, stage: Stage[Any, Any]
) -> None:
    driver, of = job
    part = SPLITS[stage.name].parts(request_of(driver, of, stage), 2)[0]
    machine.computes = noisy(1e-7)
    assert result(driver, stage, on_provider(part, Provider.CUDA))["providers"] == {CUDA: 1}
    machine.computes = noisy(0.1)
    with pytest.raises(CalibrationError, match=r"CUDA gives other numbers than the CPU: the (loss|curvature) of layer"):
        result(driver, stage, on_provider(part, Provider.CUDA))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_part_that_cuda_does_not_take_fails_and_is_not_measured_by_two(
    job: tuple[Driver, Calibrated], machine: Machine, stage: Stage[Any, Any]
) -> None:
    driver, of = job
    part = SPLITS[stage.name].parts(request_of(driver, of, stage), 2)[0]
    machine.refused = b"Conv"
    with pytest.raises(CalibrationError, match="CUDA does not take a part of the model: could not find an implementation"):
        result(driver, stage, on_provider(part, Provider.CUDA))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_parts_of_both_are_put_together_and_counted(job: tuple[Driver, Calibrated], machine: Machine, stage: Stage[Any, Any]) -> None:
    driver, of = job
    asked = request_of(driver, of, stage)
    whole = result(driver, stage, on_provider(asked, Provider.CPU))
    expected = content(driver, whole)
    split = SPLITS[stage.name]
    parts = split.parts(asked, 3)
    providers = (Provider.CPU, Provider.CUDA, Provider.CPU)
    found = [result(driver, stage, on_provider(part, provider)) for part, provider in zip(parts, providers, strict=True)]
    machine.works = False  # whoever puts them together has none
    joined = result(driver, stage, split.joined(asked, found))
    assert content(driver, joined) == expected
    more = 1 if stage is HESSIAN and joined["providers"][CPU] == 3 else 0  # further probes, where the budget's boundary asks for them
    assert joined["providers"] == {CPU: 2 + more, CUDA: 1}


def noisy(share: float) -> Any:
    """Return kernels whose results are off by a share of their spread, at random."""
    rng = np.random.default_rng(0)

    def computed(value: Array) -> Array:
        if value.dtype != np.float32 or not value.size:
            return value
        return np.asarray(value + share * value.std() * rng.standard_normal(value.shape), dtype=np.float32)

    return computed


@pytest.mark.gpu
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_part_on_a_real_gpu_says_what_the_cpu_says(job: tuple[Driver, Calibrated], stage: Stage[Any, Any]) -> None:
    if CUDA not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA: install onnxruntime-gpu in its place")
    driver, of = job
    part = SPLITS[stage.name].parts(request_of(driver, of, stage), 2)[1]
    values = {}
    for provider in (Provider.CPU, Provider.CUDA):
        found = result(driver, stage, on_provider(part, provider))
        assert found["providers"] == {provider.value: 1}
        values[provider] = numbers(driver, found)
    # Float32 sums in another order, through a few layers and a difference of outputs: four digits; a step of a trace says 5%.
    np.testing.assert_allclose(values[Provider.CUDA], values[Provider.CPU], rtol=0.1 if stage is HESSIAN else 1e-3, atol=1e-9)


def numbers(driver: Driver, found: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return what a part measured; 0 where nothing was."""
    if found.get("probes") is not None:
        probes = driver.workspace.read_value(TensorProbes, value_from_json(FileRef, found["probes"]))
        return np.array([row.curvature for row in probes.rows])
    arrays = driver.workspace.read_arrays(value_from_json(FileRef, found["losses"]))
    return np.nan_to_num(np.asarray(arrays["loss" if "loss" in arrays else "losses"], dtype=np.float64))
