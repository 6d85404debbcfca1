"""Proves on a machine what can be proved there: names, builds, achieved precisions, accuracy and, on a GPU, time.

Every piece of work is a stage in a child process, so a crash is a failed check. What a machine cannot do is skipped, and said. The result
is a list of checks, each with what was found and, unless it passed, what to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from calibration.codec import value_from_json
from calibration.errors import OptimizerError
from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.backends.gpu.catalogue import gpu_by_name
from engine_builder.backends.nvidia.tensorrt_rtx import supported_gpus
from engine_builder.errors import UnsupportedTargetError
from engine_builder.self_check.cases import CASES, Case, Comparison
from engine_builder.self_check.first_contact.checks import first_contact, first_engine
from engine_builder.self_check.fit import Measured, Roofline, fitted_gpu, gpus_row
from engine_builder.self_check.result import REPORT, RunStage, SelfCheck
from engine_builder.self_check.times import EngineTimes, TimedCases

DEFAULT_GPU = "RTX 4090"  # what tensorrt-rtx builds for where no GPU is named or found
PACKAGES = ("tensorrt_rtx", "tensorrt")
LEAST_ENGINE_AGREEMENT = 0.95  # with the simulation; values near a tie round either way
LEAST_ENGINE_KL = 1e-3  # of a divergence from the simulation that is looked at; more only as far as the simulation itself is off float32
STEADY = 0.03  # median absolute deviation over median
GRAPH_SLACK = 1.05  # a graph may take this times the time without one
ON_THE_GPU = (
    "not run: building the engines with TensorRT, precision by its inspector, accuracy on the engine, time with and without CUDA graphs, "
    "measured against predicted time"
)


def self_check(
    run: RunStage,
    *,
    gpu: str | None = None,
    on_change: Callable[[SelfCheck], None] = lambda result: None,
    more: Callable[[SelfCheck], None] = lambda result: None,
) -> SelfCheck:
    """Return what all checks found, those that tell most on a GPU first.

    Args:
        run: Runs a stage of ``self_check_stages`` in a child process that shares one workspace with the others, and returns its result.
        gpu: What tensorrt-rtx builds for; by default the GPU of this machine where it can, else ``DEFAULT_GPU``.
        on_change: Told after every check.
        more: Adds checks of its own once the first engines on the GPU are known, before the slower ones.

    Raises:
        UnsupportedTargetError: ``gpu`` is not known.
    """
    if gpu is not None:
        gpu_by_name(gpu)
    result = SelfCheck(on_change=on_change)
    has_gpu = first_contact(result, run)
    for package in PACKAGES:
        _names(result, run, package)
    if has_gpu:
        first_engine(result, run)
    device = result.attempt("GPU", run, "gpu_device", {}, "device")
    local = None if device is None else str(device["name"])
    if device is not None:
        result.add("GPU", True, f"{local}, driver {device['driver']}, TensorRT {device['tensorrt']}, {device['cuda']}", "")
    more(result)
    made = result.attempt("network", run, "prepare", {}, "network")
    if made is None:
        return result
    accuracy, samples = value_from_json(float, made["accuracy"]), value_from_json(int, made["samples"])
    result.add("network", accuracy > 0.5, f"{accuracy:.0%} of {samples} pictures right in float32", REPORT)
    models = {case.model for case in CASES if case.name == case.model and _simulated(result, run, case)}
    simulated = [case for case in CASES if case.model in models]
    built = [] if device is None else [case for case in simulated if _gpu_engine(result, run, case, str(local))]
    target = gpu if gpu is not None else _buildable(local)
    for case in simulated:
        _rtx(result, run, case, target)
    if device is None:
        result.skip("on the GPU", ON_THE_GPU, "see the check 'GPU'")
    else:
        _gpu_times(result, run, built, str(local), target)
    return result


def _buildable(local: str | None) -> str:
    if local is not None:
        for gpu in supported_gpus():
            try:
                if gpu_by_name(local) == gpu:
                    return gpu.name
            except UnsupportedTargetError:  # not in the table at all
                break
    return DEFAULT_GPU


def _names(result: SelfCheck, run: RunStage, package: str) -> None:
    name = f"names in {package}"
    found = result.attempt(name, run, "names", {"package": package}, f"names {package}")
    if found is not None:
        lacking = value_from_json(tuple[str, ...], found["lacking"])
        said = (
            f"version {found['version']} has all {found['used']} names used"
            if not lacking
            else f"version {found['version']} lacks {', '.join(lacking)}"
        )
        result.add(name, not lacking, said, f"install a version between 10.12 and 11.4, or {REPORT}")


def _simulated(result: SelfCheck, run: RunStage, case: Case) -> bool:
    name = f"{case.name}: simulated accuracy"
    found = result.attempt(name, run, "simulate", {"case": case.name}, f"simulated {case.name}")
    if found is None:
        return False
    close = value_from_json(Comparison, found["comparison"])
    good = close.agreement >= case.least_agreement and close.kl <= case.most_kl
    result.add(name, good, f"{_words(close)} against float32", f"the explicit model computes something else than the model: {REPORT}")
    return True


def _rtx(result: SelfCheck, run: RunStage, case: Case, gpu: str) -> None:
    name = f"{case.name}: tensorrt-rtx plan"
    found = result.attempt(name, run, "rtx_build", {"case": case.name, "gpu": gpu}, f"rtx {case.name}")
    if found is not None:
        good, said = _achieved(found)
        result.add(name, good, f"for {gpu}: {said}", f"see rule and layer in the file, and {REPORT}")


def _gpu_engine(result: SelfCheck, run: RunStage, case: Case, gpu: str) -> bool:
    name = f"{case.name}: engine"
    found = result.attempt(name, run, "gpu_build", {"case": case.name, "gpu": gpu}, f"engine {case.name}")
    if found is None:
        return False
    seconds, plan_bytes = value_from_json(float, found["build_seconds"]), value_from_json(int, found["plan_bytes"])
    result.add(name, True, f"built in {seconds:.1f} s, {plan_bytes / 1e6:.2f} MB", "")
    good, said = _achieved(found)
    result.add(f"{case.name}: precision on the GPU", good, said, f"the inspector says otherwise than was asked: {REPORT}")
    name = f"{case.name}: accuracy on the GPU"
    ran = result.attempt(name, run, "gpu_run", {"case": case.name}, f"ran {case.name}")
    if ran is None:
        return False
    close = value_from_json(Comparison, ran["comparison"])
    off = value_from_json(Comparison, result.raw[f"simulated {case.model}"]["comparison"])
    good = close.agreement >= LEAST_ENGINE_AGREEMENT and close.kl <= max(LEAST_ENGINE_KL, 2 * off.kl)
    result.add(name, good, f"{_words(close)} against the simulation", f"engine and simulation compute different things: {REPORT}")
    return True


def _gpu_times(result: SelfCheck, run: RunStage, cases: Sequence[Case], gpu: str, target: str) -> None:
    rows = ("CUDA graphs", "steady times", "prediction")
    if not cases:
        for name in rows:
            result.skip(name, "no engine was built and run", "see the checks above")
        return
    found = result.attempt(rows[0], run, "gpu_time", {"cases": [case.name for case in cases]}, "times")
    if found is None:
        for name in rows[1:]:
            result.skip(name, "the engines were not timed", f"see the check '{rows[0]}'")
        return
    timed = value_from_json(TimedCases, found)
    timings = timed.timings
    without = [str(times.no_graph_because) for times in timings.values() if not times.graph]
    slower = [name for name, times in timings.items() if times.graph and times.median_ms > GRAPH_SLACK * times.without_graph_ms]
    gains = ", ".join(f"{name} {times.without_graph_ms:.4f} -> {times.median_ms:.4f} ms" for name, times in timings.items())
    if without:
        result.add(rows[0], False, f"none captured: {without[0]}", "install cuda-core, which has graphs (pycuda has none)")
    else:
        result.add(rows[0], not slower, gains, f"graphs of {', '.join(slower)} are slower than no graph: {REPORT}")
    unsteady = [f"{name} {times.mad_ms / times.median_ms:.1%}" for name, times in timings.items()]
    good = all(times.mad_ms <= STEADY * times.median_ms for times in timings.values())
    said = "; ".join((f"deviation over median: {', '.join(unsteady)}", *timed.warnings))
    result.add(rows[1], good, said, "stop what else uses the GPU, lock its clock (nvidia-smi -lgc) and repeat")
    _prediction(result, timings, gpu, target)


def _prediction(result: SelfCheck, timings: Mapping[str, EngineTimes], gpu: str, target: str) -> None:
    name = "prediction"
    try:
        known = gpu_by_name(gpu)
    except UnsupportedTargetError:
        result.skip(name, f"{gpu} is not in gpus.json", "add its published peaks there, and repeat")
        return
    measured: dict[str, Measured] = {}
    for case, times in timings.items():
        # The plan of tensorrt-rtx is what predictions are made from; its kernels are this GPU's only if it was built for it.
        sources = ([f"rtx {case}"] if target == known.name else []) + [f"engine {case}"]
        parts = next((result.raw[key]["roofline"] for key in sources if "roofline" in result.raw.get(key, {})), None)
        if parts is not None:
            measured[case] = Measured(value_from_json(Roofline, parts), times.median_ms)
    if not measured:
        result.skip(name, "no kernels with sizes were listed", "install onnx-trt-optimizer[rtx] too, and repeat")
        return
    ratios = {case: engine.measured_ms / engine.roofline.predicted_ms for case, engine in measured.items()}
    good = all(abs(1 / ratio - 1) <= known.error for ratio in ratios.values())
    said = "measured over predicted: " + ", ".join(f"{case} {ratio:.2f}" for case, ratio in ratios.items())
    todo = f"predictions for {known.name} claim +-{known.error:.0%}: put the entry 'gpus_row' of the file into gpus.json, and {REPORT}"
    try:
        result.gpus_row = gpus_row(fitted_gpu(known, list(measured.values())))
    except OptimizerError as error:
        todo = f"{error.detail}; {error.fix}"
    result.add(name, good, said, todo)


def _achieved(found: Mapping[str, object]) -> tuple[bool, str]:
    rows = value_from_json(tuple[AchievedPrecision, ...], found["reached"])
    different = [row for row in rows if row.reason is not None]
    asked = Counter(row.asked.value for row in rows)
    said = f"{len(rows) - len(different)} of {len(rows)} layers as asked ({', '.join(f'{n} {p}' for p, n in sorted(asked.items()))})"
    if different:
        first = different[0]
        said += f"; {first.layer} asked {first.asked}, got {first.got or 'nothing'}: {first.reason}"
    return not different, said


def _words(close: Comparison) -> str:
    return (
        f"{close.agreement:.1%} of predictions equal, KL {close.kl:.1e}, largest difference {close.largest_difference:.3f} "
        f"(logits' deviation {close.scale:.2f})"
    )
