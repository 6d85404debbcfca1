from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from calibration.errors import InvalidModelError
from engine_builder.errors import EngineError, StageCancelledError, StageCrashedError, StageMemoryError, StageTimeoutError
from service.worker.child_process import StageLimits
from service.worker.stage_log import LOG_LIMIT_BYTES
from tests.process_state import is_running
from tests.service.worker.running import LIMITS, STAGES, Run, running


@pytest.fixture(params=["interpreter", "fork"])
def run(request: pytest.FixtureRequest) -> Run:
    return running(None if request.param == "interpreter" else request.getfixturevalue("warm_parent"))


def log_of(workspace: Path) -> str:
    return (workspace / "log.txt").read_text(errors="replace")


def has_ended(pid: int, seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def written_pid(workspace: Path, seconds: float = 10.0) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        path = workspace / "pid.json"
        if path.exists():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"no stage wrote its pid within {seconds} seconds")


def stages_left() -> list[psutil.Process]:
    """Return the processes that this test started under this one, without the warm parent itself."""
    found = [process for process in psutil.Process().children(recursive=True) if process not in _OTHERS]
    return [one for one in found if one.ppid() != os.getpid() or "service.worker.warm_main" not in one.cmdline()]


_OTHERS: set[psutil.Process] = set()  # there before the test: databases that tests of other modules share


@pytest.fixture(autouse=True)
def others() -> None:
    _OTHERS.clear()
    _OTHERS.update(psutil.Process().children(recursive=True))


def names_in(workspace: Path) -> set[str]:
    return {path.name for path in workspace.iterdir()}


def test_stage_gets_its_request_and_returns_its_result(run: Run, tmp_path: Path) -> None:
    result = run("echo", tmp_path, {"a": [1, None, "é"]})
    assert result["request"] == {"a": [1, None, "é"]}
    assert json.loads((tmp_path / "echo.json").read_text()) == {"a": [1, None, "é"]}
    assert names_in(tmp_path) == {"echo.json", "log.txt"}


def test_an_error_says_how_many_seconds_the_stage_took(run: Run, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StageCrashedError) as caught:
        run("crash", tmp_path)
    assert 0.0 < caught.value.seconds <= time.monotonic() - start
    with pytest.raises(StageTimeoutError) as late:
        run("sleep", tmp_path, limits=StageLimits(memory_bytes=2 * 2**30, seconds=0.5))
    assert 0.5 <= late.value.seconds < 20.0


def test_progress_is_passed_on_in_order(run: Run, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    run("echo", tmp_path, on_progress=lambda fraction, message: seen.append((fraction, message)))
    assert seen == [(step / 4, f"step {step}") for step in range(5)]


def test_child_knows_no_secrets_and_works_in_its_scratch_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_TRT_OPTIMIZER_API_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = run("echo", tmp_path)
    environment = result["environment"]
    assert isinstance(environment, dict)
    assert "secret" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert str(result["cwd"]).startswith(f"{tmp_path.resolve()}/scratch-")
    assert environment["TMPDIR"] == result["cwd"]


def test_numpys_threads_sleep_early_unless_the_user_says_otherwise(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timeout_in_child() -> object:
        environment = run("echo", tmp_path)["environment"]
        assert isinstance(environment, dict)
        return environment["OPENBLAS_THREAD_TIMEOUT"]

    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    assert timeout_in_child() == "4"
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    assert timeout_in_child() == "20"


def test_whatever_is_printed_goes_to_the_log_and_not_into_the_progress(run: Run, tmp_path: Path) -> None:
    seen: list[float] = []
    assert run("print_garbage", tmp_path, on_progress=lambda fraction, _: seen.append(fraction)) == {"fine": True}
    assert seen == [0.25, 0.75]
    for text in ("not json {", "written to the file descriptor", "printed by native code"):
        assert text in log_of(tmp_path)


def test_log_is_appended_to_and_capped(run: Run, tmp_path: Path) -> None:
    run("print_garbage", tmp_path)
    run("flood", tmp_path)
    log = log_of(tmp_path)
    assert log.startswith("--- print_garbage\n")
    assert "--- flood\n" in log
    assert LOG_LIMIT_BYTES <= (tmp_path / "log.txt").stat().st_size <= LOG_LIMIT_BYTES + 100
    assert log.endswith("log.txt is limited to 4194304 bytes\n")
    run("echo", tmp_path)
    assert log_of(tmp_path) == log


def test_input_error_of_a_stage_arrives_with_its_fields(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError) as caught:
        run("refuse", tmp_path)
    assert caught.value.problem() == InvalidModelError("node 'a': found op Foo, expected a standard one", fix="replace it").problem()
    assert "Traceback" not in log_of(tmp_path)


def test_unexpected_exception_keeps_its_trace_in_the_log(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        run("stumble", tmp_path)
    assert type(caught.value) is EngineError
    assert caught.value.detail.startswith("stage stumble failed: KeyError: 'no layer in x.json")
    assert caught.value.status == 500
    for secret in ("Traceback", "File ", str(tmp_path)):
        assert secret not in caught.value.detail
    assert "Traceback" in log_of(tmp_path)
    assert "about to stumble" in log_of(tmp_path)


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("return_a_set", "Object of type set is not JSON serializable"),
        ("return_a_list", "found list, expected a JSON object"),
        ("return_nan", "not JSON compliant"),
        ("exit_politely", "SystemExit"),
        ("no_such_stage", "KeyError: 'no_such_stage'"),
    ],
)
def test_stage_without_a_usable_result_is_our_fault(run: Run, tmp_path: Path, stage: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason) as caught:
        run(stage, tmp_path)
    assert not isinstance(caught.value, StageCrashedError)
    assert names_in(tmp_path) == {"log.txt"}


@pytest.mark.parametrize("stage", ["allocate", "allocate_inside_an_input_error", "say_bad_alloc_and_abort", "raise_from_runtime"])
def test_memory_limit_is_told_apart_from_other_failures(run: Run, tmp_path: Path, stage: str) -> None:
    with pytest.raises(StageMemoryError, match="needed more memory than its limit"):
        run(stage, tmp_path)
    assert names_in(tmp_path) == {"log.txt"}


@pytest.mark.long
def test_a_stage_that_opens_a_gpu_may_reserve_addresses_but_not_hold_memory_over_its_limit(run: Run, tmp_path: Path) -> None:
    limits = StageLimits(memory_bytes=2**30, seconds=20, opens_gpu=True)
    assert run("hold_memory", tmp_path, {"touched_bytes": 2**26, "seconds": 0.0}, limits=limits) == {"sum": 64}
    with pytest.raises(StageMemoryError, match="needed more memory than its limit"):
        run("hold_memory", tmp_path, {"touched_bytes": 2**30, "seconds": 15.0}, limits=limits)


def test_other_stages_may_not_even_reserve_more_addresses_than_their_limit(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StageMemoryError):
        run("hold_memory", tmp_path, {"touched_bytes": 2**26, "seconds": 0.0}, limits=StageLimits(memory_bytes=2**30, seconds=20))


def test_memory_limit_too_low_for_the_libraries_is_a_memory_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StageMemoryError):
        run("echo", tmp_path, limits=StageLimits(memory_bytes=96 * 2**20, seconds=20))


@pytest.mark.parametrize(("stage", "how"), [("crash", "SIGSEGV"), ("kill_itself", "SIGKILL"), ("leave", "status 3")])
def test_crash_is_reported_with_how_it_ended(run: Run, tmp_path: Path, stage: str, how: str) -> None:
    with pytest.raises(StageCrashedError, match=how):
        run(stage, tmp_path)
    assert names_in(tmp_path) == {"log.txt"}


def test_stage_past_its_deadline_is_killed(run: Run, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StageTimeoutError, match=r"limit of 0\.7 seconds"):
        run("sleep", tmp_path, limits=StageLimits(memory_bytes=2 * 2**30, seconds=0.7))
    assert time.monotonic() - started < 2
    assert not stages_left()  # on a busy machine it may not have come to its pid
    assert not any(name.startswith("scratch-") for name in names_in(tmp_path))


def test_cancel_ends_the_stage_within_a_second(run: Run, tmp_path: Path) -> None:
    started = threading.Event()
    cancelled_at: list[float] = []

    def should_cancel() -> bool:
        if started.is_set() and not cancelled_at:
            cancelled_at.append(time.monotonic())
        return bool(cancelled_at)

    with pytest.raises(StageCancelledError):
        run("sleep", tmp_path, on_progress=lambda fraction, message: started.set(), should_cancel=should_cancel)
    assert time.monotonic() - cancelled_at[0] < 1
    assert has_ended(written_pid(tmp_path))
    assert not any(name.startswith("scratch-") for name in names_in(tmp_path))


def test_stage_of_a_cancelled_job_is_not_started(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StageCancelledError):
        run("sleep", tmp_path, should_cancel=lambda: True)
    assert names_in(tmp_path) == set()


def test_error_of_the_caller_ends_the_stage(run: Run, tmp_path: Path) -> None:
    def interrupt(fraction: float, message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("sleep", tmp_path, on_progress=interrupt)
    assert has_ended(written_pid(tmp_path))
    assert not any(name.startswith("scratch-") for name in names_in(tmp_path))


def test_process_that_a_stage_left_behind_ends_with_it(run: Run, tmp_path: Path) -> None:
    started = time.monotonic()
    result = run("fork", tmp_path)
    assert time.monotonic() - started < 5
    assert isinstance(result["pid"], int)
    assert has_ended(result["pid"])


def test_scratch_of_a_killed_run_is_gone_after_the_next(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scratch-old").mkdir()
    (tmp_path / "scratch-old" / "big").write_bytes(b"x")
    run("echo", tmp_path)
    assert names_in(tmp_path) == {"echo.json", "log.txt"}


def test_scratch_of_a_stage_beside_which_others_run_is_left_to_it(run: Run, tmp_path: Path) -> None:
    result = run("echo", tmp_path, limits=dataclasses.replace(LIMITS, is_alone=False))
    name = Path(str(result["cwd"])).relative_to(tmp_path.resolve()).parts[0]
    (tmp_path / name).mkdir()  # as if it ran still
    run("echo", tmp_path)
    assert (tmp_path / name).is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize(
    "parent",
    ["None", f"WarmParent({STAGES!r})", f"next(one for one in [WarmParent({STAGES!r}, forks_itself=True)] if not one.start())"],
    ids=["interpreter", "fork", "fork of a fork"],
)
@pytest.mark.parametrize(("stage", "request_text"), [("sleep", "{}"), ("fork", '{"wait": true}')])
def test_no_child_survives_kill_9_of_the_server(tmp_path: Path, stage: str, request_text: str, parent: str) -> None:
    code = (
        "import json, sys; from pathlib import Path; from service.worker.child_process import StageLimits, run_in_child;"
        "from service.worker.warm_parent import WarmParent;"
        f"run_in_child({stage!r}, json.loads(sys.argv[2]), Path(sys.argv[1]), limits=StageLimits(2**31, 60),"
        f"on_progress=lambda f, m: None, should_cancel=lambda: False, stages={STAGES!r}, parent={parent})"
    )
    repository = Path(__file__).parents[3]
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), request_text], cwd=repository)
    try:
        pid = written_pid(tmp_path)
        family = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        assert pid in family
    finally:
        server.kill()
        server.wait()
    assert all(has_ended(member) for member in family)


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_stage_cannot_reach_the_network_unless_the_log_says_so(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("call_out", tmp_path, {"port": server.getsockname()[1]})
    assert result["error"] != 0 or "network is not closed" in log_of(tmp_path)


def test_interrupting_the_terminal_does_not_reach_the_child(run: Run, tmp_path: Path) -> None:
    groups: list[int] = []

    def look(fraction: float, message: str) -> None:
        groups.append(os.getpgid(written_pid(tmp_path)))

    run("sleep", tmp_path, {"seconds": 0.3}, on_progress=look)
    assert groups != [os.getpgid(0)]


def test_child_killed_from_outside_is_a_crash_that_names_the_signal(run: Run, tmp_path: Path) -> None:
    def kill(fraction: float, message: str) -> None:
        os.kill(written_pid(tmp_path), signal.SIGTERM)

    with pytest.raises(StageCrashedError, match="SIGTERM"):
        run("sleep", tmp_path, on_progress=kill)


@pytest.mark.parametrize(("memory_bytes", "seconds"), [(0, 1.0), (1, 0.0), (-1, 1.0)])
def test_limits_under_which_nothing_could_run_are_refused(memory_bytes: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="expected numbers above 0"):
        StageLimits(memory_bytes, seconds)


def test_an_interrupt_while_the_child_is_started_ends_it_too(run: Run, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    started = time.monotonic()
    main = threading.get_ident()  # which a terminal's interrupt reaches: one that another thread takes would not end its waiting

    def interrupted() -> None:
        threading.Timer(0.002, signal.pthread_kill, [main, signal.SIGINT]).start()  # a child takes longer than that to start
        run("sleep", tmp_path, {"seconds": 15.0})

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 5.0
    assert not stages_left()
    assert names_in(tmp_path) <= {"log.txt"}
