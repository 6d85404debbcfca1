from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine_builder.errors import StageCrashedError
from service.worker.child_process import STAGE_TABLE, StageLimits
from service.worker.stage_process import WarmParentLostError, stage_environment
from service.worker.warm_parent import WarmParent
from tests.process_state import is_running
from tests.service.worker.running import STAGES, running, warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what a warm parent needs")


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not is_running(pid)


def test_it_has_imported_what_real_stages_import_and_has_one_thread(tmp_path: Path) -> None:
    with warm(STAGE_TABLE) as parent:
        found = running(parent)("look_around", tmp_path)
        assert found["parent"] == parent.pid
        assert os.listdir(f"/proc/{parent.pid}/task") == [str(parent.pid)]
    modules = found["modules"]
    assert isinstance(modules, list)
    assert {"numpy", "onnx", "onnx_ir", "onnxruntime", "engine_builder.stages.trial", "engine_builder.stages.report"} <= set(modules)
    assert "matplotlib.pyplot" not in modules


def test_it_imports_no_library_that_its_stages_do_not_name(tmp_path: Path, warm_parent: WarmParent) -> None:
    modules = running(warm_parent)("look_around", tmp_path)["modules"]
    assert isinstance(modules, list)
    assert STAGES in modules
    assert {"onnx", "onnxruntime", "scipy"} & set(modules) == set()


def test_each_stage_is_a_process_of_its_own_and_holds_nothing_of_others(tmp_path: Path, warm_parent: WarmParent) -> None:
    found = [running(warm_parent)("look_around", tmp_path) for _ in range(2)]
    assert found[0]["parent"] == found[1]["parent"] == warm_parent.pid
    assert found[0]["pid"] != found[1]["pid"]
    for one in found:
        assert one["session"] == one["pid"]
        assert one["files"] == [0, 1, 2, 3]  # the last for its progress
        assert one["threads"] == 1
        assert one["dumpable"] == 1
        assert one["safe_path"] is True
        assert str(one["temporary"]).startswith(f"{tmp_path.resolve()}/scratch-")


def test_other_processes_of_the_user_may_trace_a_stage_and_not_its_parent() -> None:
    code = (
        "import ctypes, os, socket, sys, unittest.mock; from service.worker import warm_main;"
        "ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"sys.argv[1:] = [str(its.detach()), {STAGES!r}];"
        "serve = unittest.mock.patch.object(warm_main._Forker, 'serve', lambda self: print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)));"
        "serve.start(); warm_main.main()"
    )
    environment = {**os.environ, **stage_environment()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr


def test_what_a_stage_does_to_its_memory_does_not_reach_the_next(tmp_path: Path, warm_parent: WarmParent) -> None:
    assert running(warm_parent)("poison", tmp_path) == {"mark": "poisoned"}
    assert running(warm_parent)("look_around", tmp_path)["mark"] is None
    environment = running(warm_parent)("echo", tmp_path)["environment"]
    assert isinstance(environment, dict)
    assert environment.get("OMP_NUM_THREADS") != "poisoned"


def test_a_stage_whose_parent_dies_runs_once_more_and_the_next_has_a_new_parent(tmp_path: Path) -> None:
    with warm() as parent:
        runs = running(parent)("kill_parent", tmp_path)["runs"]
        assert isinstance(runs, list)
        assert len(runs) == 2
        assert runs[1] == os.getpid()
        again = running(parent)("look_around", tmp_path)["parent"]
        assert again == parent.pid
        assert again not in runs


def test_a_crash_costs_the_stage_and_not_the_parent(tmp_path: Path, warm_parent: WarmParent) -> None:
    with pytest.raises(StageCrashedError):
        running(warm_parent)("crash", tmp_path)
    assert running(warm_parent)("look_around", tmp_path)["parent"] == warm_parent.pid


@pytest.mark.long
def test_one_that_finds_a_thread_of_a_library_makes_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warm("tests.engine_builder.stages_with_a_thread") as parent:
        for _ in range(2):
            assert running(parent)("look_around", tmp_path)["parent"] == os.getpid()
        assert parent.pid is None
    assert [record.message for record in caplog.records if "2 threads" in record.message] == [
        "the parent of stages is gone: it has 2 threads, and only one lives on in a fork; stages are started one by one"
    ]


@pytest.mark.long
def test_one_that_cannot_import_is_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warm("no.such.module") as parent:
        for _ in range(3):
            assert running(parent)("look_around", tmp_path)["parent"] == os.getpid()
    assert sum("it ended with status 1" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(("memory_bytes", "opens_gpu"), [(2 * 2**30, True), (2 * 2**30 - 1, False)])
def test_a_stage_that_may_open_a_gpu_or_has_little_memory_starts_in_a_new_interpreter(
    tmp_path: Path, warm_parent: WarmParent, memory_bytes: int, *, opens_gpu: bool
) -> None:
    limits = StageLimits(memory_bytes=memory_bytes, seconds=20, opens_gpu=opens_gpu)
    assert running(warm_parent)("look_around", tmp_path, limits=limits)["parent"] == os.getpid()


@pytest.mark.long
def test_another_environment_gets_another_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warm() as parent:
        first = running(parent)("look_around", tmp_path)["parent"]
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert running(parent)("look_around", tmp_path)["parent"] not in (first, os.getpid())
        wait_for(lambda: is_gone(int(str(first))))


def test_closing_it_ends_it_and_its_stages(tmp_path: Path) -> None:
    parent = WarmParent(STAGES)
    pids: list[int] = []

    def close(fraction: float, message: str) -> None:
        if pids:  # the stage runs once more, in a new interpreter
            raise KeyboardInterrupt
        assert parent.pid is not None
        pids.extend([parent.pid, *(child.pid for child in psutil.Process(parent.pid).children())])
        parent.close()

    with pytest.raises(KeyboardInterrupt):
        running(parent)("sleep", tmp_path, on_progress=close)
    assert len(pids) == 2
    assert all(map(is_gone, pids))
    with pytest.raises(WarmParentLostError), (tmp_path / "log.txt").open("rb") as stream:
        parent.fork("sleep", stream, tmp_path)


def test_stages_beside_each_other_do_not_notice_each_others_end(tmp_path: Path, warm_parent: WarmParent) -> None:
    results: list[object] = []

    def sleep(fraction: float, message: str) -> None:
        for stage in ("crash", "kill_itself"):
            with pytest.raises(StageCrashedError):
                running(warm_parent)(stage, tmp_path / stage)
        results.append(message)

    for stage in ("slow", "crash", "kill_itself"):
        (tmp_path / stage).mkdir()
    assert running(warm_parent)("sleep", tmp_path / "slow", {"seconds": 0.5}, on_progress=sleep) == {}
    assert results == ["sleeping"]


def test_the_parent_has_no_zombies_left(tmp_path: Path, warm_parent: WarmParent) -> None:
    running(warm_parent)("echo", tmp_path)
    with pytest.raises(StageCrashedError):
        running(warm_parent)("crash", tmp_path)
    assert warm_parent.pid is not None
    assert psutil.Process(warm_parent.pid).children() == []


def test_a_terminals_interrupt_does_not_reach_it_and_one_that_was_killed_starts_again(tmp_path: Path, warm_parent: WarmParent) -> None:
    running(warm_parent)("echo", tmp_path)
    assert warm_parent.pid is not None
    assert os.getpgid(warm_parent.pid) != os.getpgid(0)
    before = warm_parent.pid
    os.kill(warm_parent.pid, signal.SIGKILL)
    wait_for(lambda: warm_parent.pid is None)
    assert running(warm_parent)("look_around", tmp_path)["parent"] != before


COMMAND = """
import json, os, signal, sys, threading, time
from pathlib import Path
import psutil
from service.worker.child_process import STAGE_TABLE
from service.worker.warm_parent import WarmParent
from tests.service.worker.running import running

folder = Path(sys.argv[1])
held = (folder / "held").open("w")
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
if "thread" in sys.argv:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("not flushed yet", end=" ")
parent = WarmParent(STAGE_TABLE, forks_itself=True)
parent.start()
first = parent.pid
is_fork = psutil.Process(first).cmdline() == psutil.Process().cmdline()
seen = running(parent)("look_around", folder)
seen["environment"] = running(parent)("echo", folder)["environment"]
running(parent)("print_garbage", folder)
os.kill(first, signal.SIGTERM)
while parent.pid is not None:
    time.sleep(0.01)
again = running(parent)("look_around", folder)["parent"]
second = parent.pid
is_second_fork = psutil.Process(second).cmdline() == psutil.Process().cmdline()
known = {"first": first, "is_fork": is_fork, "again": again, "second": second, "is_second_fork": is_second_fork}
known["temporary"] = os.environ.get("TMPDIR", "")
parent.close()
print(json.dumps({"seen": seen, **known}))
"""


def as_command(folder: Path, *arguments: str) -> dict[str, object]:
    """Run stages as a command does, in whose process no other thread is, and return what was seen."""
    environment = {**os.environ, "A_KEY": "secret", "PYTHONPATH": str(Path(__file__).parents[3])}
    environment.pop("TMPDIR", None)
    command = [sys.executable, "-c", COMMAND, str(folder), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not flushed yet") == 1
    found: dict[str, object] = json.loads(done.stdout.removeprefix("not flushed yet "))
    return found


def test_a_command_forks_itself_and_stages_have_nothing_of_it(tmp_path: Path) -> None:
    found = as_command(tmp_path)
    seen = found["seen"]
    assert isinstance(seen, dict)

    assert found["is_fork"] is True
    assert seen["parent"] == found["first"]
    assert seen["session"] == seen["pid"]
    assert seen["files"] == [0, 1, 2, 3]  # neither the command's own file nor its end of the socket
    assert (seen["threads"], seen["dumpable"]) == (1, 1)
    assert seen["has_default_signals"] is True
    assert seen["cwd_of_parent"] == "/"
    assert {"onnxruntime.capi", "engine_builder.stages.trial"} <= set(seen["modules"])
    assert "matplotlib" not in seen["modules"]  # the report of the one job imports it
    assert "" not in seen["path"]  # the folder that the command was called in
    assert "A_KEY" not in seen["environment"]
    assert "secret" not in seen["started_with"]
    assert found["temporary"] == ""
    assert "printed by native code" in (tmp_path / "log.txt").read_text(errors="replace")


def test_one_in_the_place_of_a_fork_that_was_killed_is_started_anew(tmp_path: Path) -> None:
    found = as_command(tmp_path)

    assert found["again"] == found["second"]
    assert found["first"] != found["second"]
    assert found["is_second_fork"] is False


@pytest.mark.long
def test_a_command_with_another_thread_is_not_forked(tmp_path: Path) -> None:
    found = as_command(tmp_path, "thread")
    assert found["is_fork"] is False
    assert isinstance(found["seen"], dict)
    assert found["seen"]["parent"] == found["first"]
