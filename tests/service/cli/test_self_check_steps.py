"""The first steps in real child processes, with the stub driver, a cuBLAS and an NVML that pretend, and the stand-in for TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from calibration.codec import value_from_json
from calibration.errors import OptimizerError
from engine_builder.backends.gpu.catalogue import typical_conversion_ms
from engine_builder.errors import EngineError, StageCrashedError, StageTimeoutError, UnsupportedTargetError
from service.cli.self_check import Clock, _in_children
from tests.engine_builder.stub_driver import compile_library
from tests.long_cases import mostly_long
from tests.tensorrt_stand_in.install import install
from tests.tensorrt_stand_in.orders import Failure, Harm, Orders, Step, give_orders

CUBLAS = """
void stub_work(float ms);
int cublasCreate_v2(void **made) { *made = (void *)1; return 0; }
int cublasDestroy_v2(void *held) { return 0; }
int cublasSetStream_v2(void *held, void *stream) { return 0; }
int cublasGemmEx(void *held, int a, int b, int m, int n, int k, const void *one, const void *left, int type, int lda, const void *right,
                 int of, int ldb, const void *zero, void *result, int to, int ldc, int arithmetic, int way) {
    if (type == 14) return 15; /* no bfloat16 */
    stub_work((type == 3 ? 1e-9f : 2e-9f) * m * n); /* INT8 takes half the time */
    return 0;
}
"""
NVML = """
class NVMLError(Exception):
    pass

NVML_CLOCK_SM = NVML_CLOCK_MEM = NVML_TEMPERATURE_GPU = 0

def denied(*arguments):
    raise NVMLError("Insufficient Permissions")

def nvmlInit(): pass
def nvmlDeviceGetHandleByPciBusId(place): return 1
def nvmlDeviceGetUUID(gpu): return "GPU-1"
def nvmlDeviceGetName(gpu): return "stub"
def nvmlSystemGetDriverVersion(): return "580.65"
def nvmlDeviceGetClockInfo(gpu, clock): return 1500
def nvmlDeviceGetMaxClockInfo(gpu, clock): return 2000
def nvmlDeviceGetMigMode(gpu): return (0, 0)
nvmlDeviceGetPowerUsage = nvmlDeviceGetTemperature = nvmlDeviceGetCurrentClocksEventReasons = denied
nvmlDeviceGetComputeRunningProcesses = denied
"""
Steps = Callable[..., Mapping[str, object]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU that pretends; returns the folder of its libraries."""
    folder = tmp_path / "machine"
    folder.mkdir()
    for name, value in install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def step(tmp_path: Path) -> Steps:
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def run(stage: str, seconds: float | None = None, **request: object) -> Mapping[str, object]:
        return _in_children(workspace, lambda line: None, Clock(seconds))(stage, request)

    return run


def test_the_driver_is_asked_in_a_child_and_the_uuid_is_kept_back(machine: Path, step: Steps) -> None:
    found = step("cuda_visible")
    assert (found["name"], found["cuda"], found["visible_devices"], found["same_by_uuid"]) == ("NVIDIA Stub 1", "13.0", "not set", True)
    assert "07070707" not in str(found)


def test_visible_devices_choose_the_gpu_and_are_told_in_kind(machine: Path, step: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = step("cuda_visible")
    # The stub takes every UUID for its first GPU: then it is not the one that was seen.
    assert (found["name"], found["visible_devices"], found["same_by_uuid"]) == ("NVIDIA Stub 2", "an index", False)


def test_a_driver_that_shows_no_gpu_fails_and_says_where_to_look(machine: Path, step: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_STUB_FAIL", "cuInit")
    with pytest.raises(EngineError, match="shows no GPU") as caught:
        step("cuda_visible")
    assert "--gpus all" in caught.value.fix


def test_an_adapter_is_taken_through_memory_copies_events_and_a_graph(machine: Path, step: Steps) -> None:
    found = step("cuda_adapter", package="cuda.core")
    assert str(found["package"]).startswith("cuda.core ")
    assert found["graph"] is True
    assert value_from_json(float, found["copies_ms"]) > 0


def test_a_graph_that_cannot_be_captured_is_told_and_no_end(machine: Path, step: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_STUB_FAIL", "cuStreamEndCapture")
    found = step("cuda_adapter", package="cuda.core")
    assert found["graph"] is False
    assert "could not capture" in str(found["no_graph_because"])


@pytest.mark.long
def test_a_driver_that_crashes_or_hangs_costs_its_step(machine: Path, step: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_STUB_CRASH", "cuMemcpy")
    with pytest.raises(StageCrashedError, match="SIGSEGV"):
        step("cuda_adapter", package="cuda.core")
    monkeypatch.delenv("CUDA_STUB_CRASH")
    monkeypatch.setenv("CUDA_STUB_HANG", "cuMemcpy")
    with pytest.raises(StageTimeoutError):
        step("cuda_adapter", seconds=6.0, package="cuda.core")


def test_the_lock_is_taken_and_excludes(machine: Path, step: Steps) -> None:
    assert step("cuda_lock")["folder_is_named"] is True
    assert [path.suffix for path in (machine / "locks").iterdir()] == [".lock"]


def test_what_nvml_may_not_tell_is_left_open(machine: Path, step: Steps) -> None:
    (machine / "packages" / "pynvml.py").write_text(NVML)
    found = step("cuda_state")
    assert found["by"] == "NvmlMonitor"
    assert found["unknown"] == ["held_back_by", "other_processes", "power_w", "temperature_c"]
    assert (found["driver"], found["sm_clock_mhz"]) == ("580.65", 1500)
    assert value_from_json(float, found["reading_ms"]) > 0


def test_an_nvml_that_refuses_says_why(machine: Path, step: Steps) -> None:
    refusing = NVML.replace("def nvmlInit(): pass", "def nvmlInit(): denied()")
    (machine / "packages" / "pynvml.py").write_text(refusing)
    with pytest.raises(UnsupportedTargetError, match="Insufficient Permissions"):
        step("cuda_state")


def test_conversions_copies_and_launches_are_timed(machine: Path, step: Steps) -> None:
    found = step("cuda_speed")
    large = value_from_json(dict[str, float], found[f"{2**26} elements"])
    assert large["quantize_ms_per_element"] == pytest.approx(4e-9, rel=0.05)  # the stub's, and a launch
    assert large["copy_gb_per_s"] == pytest.approx(1000, rel=0.05)
    assert found["launch_us_graph"] == pytest.approx(2.0, rel=0.01)
    assert found["prior_ms"] == typical_conversion_ms((8, 9))


@pytest.mark.long
def test_products_are_timed_by_precision_and_what_is_refused_is_said(machine: Path, step: Steps) -> None:
    compile_library(CUBLAS, machine / "libcublas.so.13", f"-L{machine}", "-l:libcuda.so.1")
    found = step("cuda_products")
    rows = value_from_json(dict[str, dict[str, object]], found["side 4096"])
    assert "refused" in rows["bf16"]
    assert value_from_json(float, rows["fp16"]["ms"]) == pytest.approx(2 * value_from_json(float, rows["int8"]["ms"]), rel=1e-3)
    assert value_from_json(float, rows["fp16"]["tops"]) == pytest.approx(2 * 4096**3 / (2e-9 * 4096**2) / 1e9, rel=1e-3)


def test_a_first_engine_is_built_then_run_and_timed(machine: Path, step: Steps) -> None:
    built = step("gpu_first_build")
    assert len(value_from_json(tuple[str, ...], built["kernels"])) == 2
    ran = step("gpu_first_run")
    assert value_from_json(float, ran["off"]) < 0.02
    assert value_from_json(float, ran["median_ms"]) > 0
    stripped = step("gpu_first_strip")
    assert value_from_json(int, stripped["plan_bytes"]) < value_from_json(int, stripped["whole_bytes"]) / 10
    assert stripped["off"] == ran["off"]


def test_weights_that_are_not_put_back_fail_the_step(machine: Path, step: Steps) -> None:
    step("gpu_first_build")
    give_orders(machine, Orders(failures=(Failure(Step.REFIT, Harm.ERROR, only_quantized=False),)))
    with pytest.raises(OptimizerError, match="weights could not be put back"):
        step("gpu_first_strip")


@pytest.mark.parametrize(
    ("failed", "harm", "error"),
    mostly_long(
        [
            (Step.BUILD, Harm.ERROR, OptimizerError),
            (Step.BUILD, Harm.CRASH, StageCrashedError),
            (Step.BUILD, Harm.HANG, StageTimeoutError),
            (Step.LOAD, Harm.OUT_OF_MEMORY, OptimizerError),
        ]
    ),
)
def test_a_build_that_goes_wrong_costs_its_step(machine: Path, step: Steps, failed: Step, harm: Harm, error: type[Exception]) -> None:
    give_orders(machine, Orders(failures=(Failure(failed, harm, only_quantized=False),)))
    with pytest.raises(error):
        step("gpu_first_build", seconds=8.0 if harm is Harm.HANG else None)


def test_without_tensorrt_the_engine_is_left_out(machine: Path, step: Steps) -> None:
    (machine / "packages" / "tensorrt.py").unlink()
    with pytest.raises(UnsupportedTargetError, match="tensorrt"):
        step("gpu_first_build")
    assert step("cuda_lock")
