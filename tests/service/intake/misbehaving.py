"""Stages that an upload could turn reading into: without end, without bound. A table, as a child process takes it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from engine_builder.workspace.workspace import StageContext


def spin(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    while True:
        pass


def write(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    with (context.scratch / "large").open("wb") as file:
        file.truncate(int(str(request["bytes"])))
    return {"written": True}


def allocate(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    return {"length": len(bytearray(64 * 2**30))}


def crash(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    os.abort()


STAGES = {"unpack": spin, "spin": spin, "write": write, "allocate": allocate, "crash": crash}
