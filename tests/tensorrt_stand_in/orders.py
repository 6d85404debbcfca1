"""What a test tells the stand-in to do, and what the stand-in notes, in a folder that both know, since stages are other processes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from calibration.codec import json_from_value, value_from_json

FOLDER_VARIABLE = "NVIDIA_TENSORRT_STAND_IN"  # stages are given variables that begin with NVIDIA_
DRIVER = "libcuda.so.1"
_ORDERS, _BUILDS, _HANGING = "orders.json", "builds.jsonl", "hanging"


class Step(StrEnum):
    """Where something fails."""

    PARSE = "parse"
    BUILD = "build"
    LOAD = "load"
    RUN = "run"
    REFIT = "refit"


class Harm(StrEnum):
    """How it fails."""

    ERROR = "error"  # as TensorRT does: None or False, and a line in the log
    OUT_OF_MEMORY = "out_of_memory"
    CRASH = "crash"  # of the process
    HANG = "hang"  # until the process is ended
    STICKY = "sticky"  # of CUDA: whatever the process asks of the driver from now on fails


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that goes wrong once, with an engine that is quantized or with any."""

    step: Step
    harm: Harm
    only_quantized: bool = True


@dataclass(frozen=True, slots=True)
class Effect:
    """What a knob's value does to an engine."""

    times: float = 1.0  # of what a run takes
    is_wrong: bool = False  # whether outputs come out with the wrong sign
    harm: Harm | None = None  # to each build


@dataclass(frozen=True, slots=True)
class KnobOrder:
    """A knob of the builder."""

    name: str
    values: Mapping[str, Effect]  # the first is the default


@dataclass(frozen=True, slots=True)
class Orders:
    """How the stand-in behaves."""

    version: str = "11.4.0.106"
    inspector: int = 11  # the form of its JSON: that of TensorRT 10 or 11
    float_ms: float = 0.04  # of a layer that multiplies
    half_ms: float = 0.02
    low_ms: float = 0.01  # in INT8, FP8 or with INT4 weights
    failures: tuple[Failure, ...] = ()  # those of a step come in this order
    knobs: tuple[KnobOrder, ...] = ()
    stripped: Effect = field(default_factory=Effect)  # on engines that are built without their weights
    keeps_weights: bool = False  # whether a plan has its weights although it was to have none
    build_seconds: float = 0.0  # that the build of a quantized engine takes at least


@dataclass(frozen=True, slots=True)
class NotedBuild:
    """One call of the builder."""

    is_quantized: bool
    level: int
    timed: int  # tactics that the timing cache did not hold
    known: int  # tactics that it held
    sha256: str  # of the model
    route: str = ""
    is_stripped: bool = False


def folder() -> Path:
    """Return the folder."""
    return Path(os.environ[FOLDER_VARIABLE])


def give_orders(place: Path, orders: Orders) -> None:
    """Write the orders; whichever process looks next finds them."""
    fresh = place / f"{_ORDERS}.new"
    fresh.write_text(json.dumps(json_from_value(orders)), encoding="utf-8")
    fresh.rename(place / _ORDERS)
    for mark in (place / _HANGING, *(place / f"harmed-{step}" for step in Step)):
        mark.unlink(missing_ok=True)


def orders() -> Orders:
    """Return the orders of now."""
    return value_from_json(Orders, json.loads((folder() / _ORDERS).read_text(encoding="utf-8")))


def note_build(build: NotedBuild) -> None:
    """Note a call of the builder."""
    with (folder() / _BUILDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(json_from_value(build)) + "\n")


def noted_builds(place: Path) -> list[NotedBuild]:
    """Return the calls of the builder so far."""
    path = place / _BUILDS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [value_from_json(NotedBuild, json.loads(line)) for line in lines]


def is_hanging(place: Path) -> bool:
    """Whether a step hangs, or has hung, since the last orders."""
    return (place / _HANGING).exists()


def harm(step: Step, *, is_quantized: bool) -> Harm | None:
    """Do the harm that was ordered for a step; return it where the caller has to fail, None where all is well."""
    planned = [failure for failure in orders().failures if failure.step is step]
    marks = folder() / f"harmed-{step}"
    done = marks.stat().st_size if marks.exists() else 0
    if done >= len(planned) or (planned[done].only_quantized and not is_quantized):
        return None
    failure = planned[done]
    with marks.open("ab") as file:
        file.write(b".")
    return suffered(failure.harm)


def suffered(wanted: Harm) -> Harm:
    """Do a harm; return it where the caller has to fail."""
    if wanted is Harm.CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if wanted is Harm.HANG:
        (folder() / _HANGING).touch()
        while True:
            time.sleep(60)
    if wanted is Harm.STICKY:
        ctypes.CDLL(DRIVER).stub_break()
    return wanted
