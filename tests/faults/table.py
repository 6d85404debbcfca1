"""``python -m tests.faults.table``: every kind of fault at several seeded moments, as a table; exits 1 if anything was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.experiment import Outcome, experiment
from tests.faults.kinds import KINDS, ImpossibleHereError
from tests.faults.server_process import ServerProcess, running, small_disk

HEAD = (
    "| kind | trials | lost | finished steps run again | steps run again | orphans | recovery, seconds: median | worst |",
    "|---|---|---|---|---|---|---|---|",
)
DISK_BYTES = 48 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    for line in HEAD:
        say(line)
    is_sound = True
    left = list(options.kinds or KINDS)
    while left:
        with (
            tempfile.TemporaryDirectory(prefix="faults-") as folder,
            small_disk(Path(folder, "disk"), DISK_BYTES),
            running(Path(folder), Path(folder, "disk", "data")) as server,
        ):
            remark = ""
            while left and not remark:  # one server as long as it outlasts its faults
                kind = left.pop(0)
                outcomes, remark = _outcomes(server, kind, options.seed, options.trials)
                is_sound &= not any(one.is_lost or one.finished_again or one.orphans for one in outcomes) and not remark
                say(row(kind, outcomes, remark))
    return 0 if is_sound else 1


def _outcomes(server: ServerProcess, kind: str, seed: int, trials: int) -> tuple[list[Outcome], str]:
    outcomes: list[Outcome] = []
    try:
        for number in range(seed, seed + trials):
            outcomes.append(experiment(server, kind, number))
    except ImpossibleHereError as error:
        return outcomes, f"not possible here: {error}"
    except AssertionError as error:
        return outcomes, f"stood still for ever: {' '.join(str(error).split())[-300:]}"
    return outcomes, ""


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def row(kind: str, outcomes: Sequence[Outcome], remark: str) -> str:
    """Return the row of a kind; ``remark`` says why it has fewer trials than it should."""
    if not outcomes:
        return f"| {kind} | 0 | {remark} | | | | | |"
    seconds = sorted(one.still_seconds for one in outcomes)
    cells = (
        kind + (f" ({remark})" if remark else ""),
        len(outcomes),
        sum(one.is_lost for one in outcomes),
        sum(len(one.finished_again) for one in outcomes),
        sum(one.runs_again for one in outcomes),
        sum(len(one.orphans) for one in outcomes),
        f"{seconds[len(seconds) // 2]:.1f}",
        f"{seconds[-1]:.1f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5, help="moments of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=tuple(KINDS), metavar="KIND", help="only these")
    return parser


if __name__ == "__main__":
    sys.exit(main())
