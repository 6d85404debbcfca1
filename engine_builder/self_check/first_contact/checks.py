"""The first checks on a GPU, those that tell most in the least time first: driver, CUDA packages, lock, state, speeds, a small engine."""

from __future__ import annotations

from collections.abc import Mapping

from calibration.codec import value_from_json
from engine_builder.backends.gpu.devices import ADAPTERS
from engine_builder.self_check.first_contact.speeds import SIDES, SIZES
from engine_builder.self_check.result import REPORT, RunStage, SelfCheck

PRIOR_FACTOR = 3.0  # by which a conversion may differ from what the time model starts with
READING_MS = 20.0  # a reading of the GPU's state that is taken beside timed runs may last this long
WITHOUT_CUDA = ("GPU lock", "GPU state", "conversions and launches", "products")


def first_contact(result: SelfCheck, run: RunStage) -> bool:
    """Note what CUDA does on this machine; returns whether the driver shows a GPU and a CUDA package works on it."""
    seen = result.attempt("driver", run, "cuda_visible", {}, "visible")
    if seen is None:
        return False
    by_uuid, closed = (value_from_json(bool, seen[key]) for key in ("same_by_uuid", "network_is_closed"))
    said = (
        f"{seen['name']}, driver {seen['driver'] or 'of unknown version'}, CUDA {seen['cuda']}, "
        f"CUDA_VISIBLE_DEVICES {seen['visible_devices']}, "
        f"in a child process {'without' if closed else 'with'} network; by its UUID {'the same GPU' if by_uuid else 'no or another GPU'}"
    )
    result.add("driver", by_uuid, said, f"a GPU cannot be chosen by CUDA_VISIBLE_DEVICES=GPU-...: {REPORT}")
    works = [name for name in ADAPTERS if _adapter(result, run, name)]
    if not works:
        for name in WITHOUT_CUDA:
            result.skip(name, "no CUDA package works here", "see the checks above")
        return False
    _lock(result, run)
    _state(result, run)
    _conversions(result, run)
    _products(result, run)
    return True


def first_engine(result: SelfCheck, run: RunStage) -> None:
    """Note how a small engine is parsed, built, run and timed."""
    name = "first engine: build"
    built = result.attempt(name, run, "gpu_first_build", {}, "first build")
    if built is None:
        return
    parse, build = (value_from_json(float, built[key]) for key in ("parse_seconds", "build_seconds"))
    kernels = value_from_json(tuple[str, ...], built["kernels"])
    said = f"parsed in {parse:.1f} s, built in {build:.1f} s, the inspector lists {len(kernels)} kernels"
    result.add(name, bool(kernels), said, f"the inspector's words cannot be read: {REPORT}")
    name = "first engine: run"
    ran = result.attempt(name, run, "gpu_first_run", {}, "first run")
    if ran is None:
        return
    times = [value_from_json(float, ran[key]) for key in ("median_ms", "without_graph_ms", "enqueue_ms", "off")]
    graph = "as a graph" if ran["graph"] else f"without a graph ({ran['no_graph_because']})"
    said = (
        f"{times[0]:.4f} ms {graph}, {times[1]:.4f} ms without, {times[2]:.4f} ms to queue; off by {times[3]:.1e} of the results' deviation"
    )
    said = "; ".join((said, *value_from_json(tuple[str, ...], ran["warnings"])))
    result.add(name, min(times[:2]) > 0, said, f"events give no time: {REPORT}")
    _stripped(result, run)


def _stripped(result: SelfCheck, run: RunStage) -> None:
    name = "first engine: weights stripped and put back"
    found = result.attempt(name, run, "gpu_first_strip", {}, "first strip")
    if found is None:
        return
    small, whole = (value_from_json(int, found[key]) for key in ("plan_bytes", "whole_bytes"))
    off, built, loaded = (value_from_json(float, found[key]) for key in ("off", "build_seconds", "load_and_run_seconds"))
    said = (
        f"a plan of {small:,} bytes in the place of {whole:,}, built in {built:.1f} s; weights put back, opened and run in {loaded:.1f} s, "
        f"off by {off:.1g} of the results' deviation"
    )
    result.add(name, small < whole, said, f"the plan has its weights although it was to have none: {REPORT}")


def _adapter(result: SelfCheck, run: RunStage, package: str) -> bool:
    name = f"CUDA by {package}"
    found = result.attempt(name, run, "cuda_adapter", {"package": package}, f"adapter {package}")
    if found is None:
        return False
    graph = "a graph captured and launched" if found["graph"] else f"no graph: {found['no_graph_because']}"
    has_expected = bool(found["graph"]) or package == "pycuda"  # which has none
    result.add(name, has_expected, f"{found['package']}: memory, copies, events; {graph}", REPORT)
    return True


def _lock(result: SelfCheck, run: RunStage) -> None:
    found = result.attempt("GPU lock", run, "cuda_lock", {}, "lock")
    if found is not None:
        place = "the folder that was named" if found["folder_is_named"] else "the machine's folder"
        waited = value_from_json(float, found["waited_seconds"])
        result.add("GPU lock", True, f"taken in {place} after {waited:.1f} s, and a second holder refused", "")


def _state(result: SelfCheck, run: RunStage) -> None:
    name = "GPU state"
    found = result.attempt(name, run, "cuda_state", {}, "state")
    if found is None:
        return
    cost, slowest = (value_from_json(float, found[key]) for key in ("reading_ms", "slowest_reading_ms"))
    unknown = value_from_json(tuple[str, ...], found["unknown"])
    said = f"by {found['by']}: {cost:.2f} ms a reading, {slowest:.2f} ms the slowest"
    parts = [said, f"not known: {', '.join(unknown)}" if unknown else "all is known"]
    if found["other_processes"]:
        parts.append(f"{found['other_processes']} other processes use the GPU")
    held = value_from_json(tuple[str, ...], found["held_back_by"])
    if held:
        parts.append(f"clock held back: {', '.join(held)}")
    cheap = found["by"] != "NvmlMonitor" or cost <= READING_MS
    result.add(name, cheap, "; ".join(parts), f"readings beside timed runs are slow: {REPORT}")


def _conversions(result: SelfCheck, run: RunStage) -> None:
    name = "conversions and launches"
    found = result.attempt(name, run, "cuda_speed", {}, "speed")
    if found is None:
        return
    small, large = (_numbers(found[f"{size} elements"]) for size in SIZES)
    prior, graph, plain = (value_from_json(float, found[key]) for key in ("prior_ms", "launch_us_graph", "launch_us_plain"))
    measured = (large["quantize_ms_per_element"] + large["dequantize_ms_per_element"]) / 2
    said = (
        f"{measured:.2e} ms an element between FP16 and INT8 in memory ({small['quantize_ms_per_element']:.2e} in the cache), "
        f"the time model starts with {prior:.2e}; copies {large['copy_gb_per_s']:.0f} GB/s; "
        f"a launch {graph:.2f} us in a graph, {plain:.2f} us without"
    )
    good = prior / PRIOR_FACTOR <= measured <= prior * PRIOR_FACTOR
    result.add(name, good, said, f"the time model would begin far off on this GPU: {REPORT}")


def _products(result: SelfCheck, run: RunStage) -> None:
    found = result.attempt("products", run, "cuda_products", {}, "products")
    if found is None:
        return
    said, refused, ran = [], [], 0
    for side in SIDES:
        speeds = []
        for precision, row in value_from_json(dict[str, object], found[f"side {side}"]).items():
            told = value_from_json(dict[str, object], row)
            if "refused" in told:
                refused.append(f"{precision} at {side}: {told['refused']}")
            else:
                ran += 1
                speeds.append(f"{precision} {value_from_json(float, told['tops']):.3g}")
        said.append(f"{side} x {side}: {', '.join(speeds) or 'none'} TFLOP/s")
    result.add("products", ran > 0, "; ".join((*said, *refused)), f"cuBLAS refuses every product: {REPORT}")


def _numbers(value: object) -> Mapping[str, float]:
    return value_from_json(dict[str, float], value)
