"""``python -m tests.generated.fuzz``: the laws and whole jobs on thousands of models, each in a process of its own with a time limit.

Prints a line for each finding, with the seed that makes the model again, and a summary of how models ended; exits 1 after a finding.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from calibration.errors import InputError
from tests.generated.choices import Choices, replayed, seeded, shrunk
from tests.generated.jobs import ADA, CPU, job_fault
from tests.generated.laws import REFUSED, broken_laws, unsound
from tests.generated.models import generate

LAWS = "laws"
TARGETS = {"onnxruntime-cpu": CPU, "tensorrt-rtx": ADA}


@dataclass(frozen=True)
class Fate:
    """What became of one model."""

    ended: str  # for the summary
    finding: str = ""  # empty where all is well
    operators: tuple[str, ...] = ()
    choices: tuple[int, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    checks = [] if options.no_laws else [LAWS]
    fates: Counter[str] = Counter()
    operators: set[str] = set()
    findings = 0
    started = time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        for check in (*checks, *(options.jobs if seed % options.every == 0 else [])):
            fate = examined(seeded(seed), check, options.seconds)
            fates[f"{check}: {fate.ended}"] += 1
            operators.update(fate.operators)
            if fate.finding:
                findings += 1
                _say(f"seed {seed}, {check}: {fate.finding}")
                if options.keep is not None:
                    _keep(options.keep, f"{check}-{seed}", fate, check, options.seconds, shrink=options.shrink)
            if fate.ended == "unsound":
                break
    for name, count in sorted(fates.items(), key=lambda item: (item[0].split(":")[0], -item[1])):
        _say(f"{count:6}  {name}")
    summary = f"{findings} findings in {options.count} models of {len(operators)} operators from seed {options.seed}"
    _say(f"{summary}, {time.monotonic() - started:.0f} s")
    return int(findings > 0)


def examined(choices: Choices, check: str, seconds: float) -> Fate:
    """Return what becomes of the model of these choices, found out in a process of its own.

    Args:
        choices: They make the model.
        check: ``laws``, or the target of a whole job.
        seconds: The time limit.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_examine, args=(choices, check, there), daemon=True)
    process.start()
    there.close()
    try:
        fate = here.recv() if here.poll(seconds) else Fate("time limit", f"takes more than {seconds:g} s")
    except EOFError:
        process.join()
        fate = Fate("crash", f"the process ended with {process.exitcode}")
    process.kill()
    process.join()
    return fate


def _examine(choices: Choices, check: str, answer: Connection) -> None:
    """Send the fate of a model."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    os.dup2(quiet, sys.stderr.fileno())
    answer.send(_fate(choices, check))


def _fate(choices: Choices, check: str) -> Fate:
    made = generate(choices)
    facts = (made.operators, tuple(choices.made))
    if (why := unsound(made)) is not None:
        return Fate("unsound", "" if why.startswith(REFUSED) else f"the generator is wrong: {why}", *facts)
    try:
        if check == LAWS:
            broken = broken_laws(made)
            return Fate("broken" if broken else "held", "; ".join(broken), *facts)
        with tempfile.TemporaryDirectory() as folder:
            ended, fault = job_fault(made, TARGETS[check], Path(folder))
        return Fate(_kind(ended), fault or "", *facts)
    except InputError as error:
        return Fate(_kind(f"refused: {error.detail}"), "", *facts)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())[:400]
        return Fate("failed", f"{type(error).__name__} ({Path(place.filename).name}:{place.lineno}): {words}", *facts)


def _kind(message: str) -> str:
    """Return a message without the names and numbers of one model, for counting."""
    return re.sub(r"\d+", "0", re.sub(r"'[^']*'", "'...'", message))[:110]


def _keep(folder: Path, name: str, fate: Fate, check: str, seconds: float, *, shrink: bool) -> None:
    """Write the model of a finding, and what was found, into a folder."""
    choices = fate.choices
    if shrink and choices:
        begin = _kind(fate.finding)[:60]
        choices = shrunk(choices, lambda tried: _kind(examined(replayed(tried), check, seconds).finding)[:60] == begin)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(f"{fate.finding}\n{list(choices)}\n", encoding="utf-8")
    if choices:
        (folder / f"{name}.onnx").write_bytes(generate(replayed(choices)).model.SerializeToString())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    def targets(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in TARGETS]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} found, {', '.join(TARGETS)} expected")
        return names

    parser = argparse.ArgumentParser(prog="python -m tests.generated.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first model; the next ones have the next seeds")
    parser.add_argument("--count", type=int, default=1000, help="how many models")
    parser.add_argument("--jobs", type=targets, default=[], help="run whole jobs too: targets, divided by commas")
    parser.add_argument("--every", type=int, default=1, help="a whole job for one in so many models")
    parser.add_argument("--no-laws", action="store_true", help="whole jobs alone")
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of one check of one model")
    parser.add_argument("--keep", type=Path, help="folder for the models of findings")
    parser.add_argument("--shrink", action="store_true", help="first make those as small as the finding allows (minutes for each)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
