"""Takes a CUDA runtime through every step that the project asks of one, and notes what it sees.

``python -m tests.engine_builder.cuda_steps cuda.core``, with the stub driver on LD_LIBRARY_PATH, does so with an adapter in a process of
its own: it prints what it saw, and heads each step in the stub driver's log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.devices import ADAPTERS
from engine_builder.errors import EngineError


def main(adapter: str) -> None:
    log = Path(os.environ["STUB_DRIVER_LOG"])

    def step(name: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"# {name}\n")

    step("open")
    try:
        runtime = ADAPTERS[adapter]()
    except EngineError as error:
        sys.stdout.write(json.dumps({"open": f"{error}"}))
        return
    sys.stdout.write(json.dumps(walk(runtime, step)))


def walk(runtime: CudaRuntime, step: Callable[[str], None]) -> dict[str, object]:
    """Return what each step gave, in JSON's types; ``step`` is told when one begins."""
    seen: dict[str, object] = {}

    def refused(call: object, *arguments: object) -> str:
        try:
            call(*arguments)  # type: ignore[operator]  # each is a method
        except (EngineError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "accepted"

    seen["package"] = runtime.package
    seen["device"] = [runtime.device.name, runtime.device.pci_bus_id, list(runtime.device.compute_capability), runtime.device.uuid]
    step("stream")
    stream = runtime.create_stream()
    seen["handle"] = stream.handle
    step("allocate")
    buffer, empty = runtime.allocate(24), runtime.allocate(0)
    seen["sizes"] = [buffer.size_bytes, empty.size_bytes]
    seen["addresses"] = [buffer.address, empty.address]
    step("page-locked")
    sent, received = runtime.page_locked((2, 3), np.float32), runtime.page_locked((2, 3), np.float32)
    sent[:] = np.arange(6, dtype=np.float32).reshape(2, 3)
    received[:] = 0
    seen["empty array"] = list(runtime.page_locked((0, 3), np.int64).shape)
    step("round trip")
    before = stream.record()
    stream.copy_to_device(buffer, sent)
    stream.copy_to_host(received, buffer)
    after = stream.record()
    after.synchronize()
    seen["received"] = received.tolist()
    seen["ms"] = after.ms_since(before)
    step("refusals")
    seen["too long"] = refused(stream.copy_to_device, empty, sent)
    seen["too long back"] = refused(stream.copy_to_host, received, empty)
    seen["not contiguous"] = refused(stream.copy_to_device, buffer, sent.T)
    seen["too much"] = refused(runtime.allocate, 1 << 50)
    step("capture")
    captured_on: list[int] = []

    def work(handle: int) -> bool:
        captured_on.append(handle)
        return True

    try:
        graph = stream.capture(work)
    except EngineError as error:
        seen["capture"] = str(error)
    else:
        seen["captured elsewhere"] = captured_on != [stream.handle]
        step("launch")
        graph.launch()
        graph.launch()
        graph.close()
        graph.close()
    step("failed capture")
    seen["failed capture"] = refused(stream.capture, lambda handle: False)
    step("free")
    stream.synchronize()
    buffer.free()
    buffer.free()
    step("free arrays")
    del sent
    step("close")
    stream.close()
    stream.close()
    return seen


if __name__ == "__main__":
    main(sys.argv[1])
