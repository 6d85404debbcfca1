"""``python -m tests.soak``: small real jobs over HTTP with random kills, on one server or several processes; exits 1 if any was lost."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.results_files import RESULTS, environment, environment_line, write_results
from tests.distributed.fleet import running_fleet
from tests.distributed.launch_process import REAL
from tests.faults.table import say
from tests.postgres_server import REASON, binaries, running_postgres
from tests.soak.page import page
from tests.soak.places import EmbeddedPlace, FleetPlace, Place
from tests.soak.soaking import Plan, soak

EMBEDDED, DISTRIBUTED = "embedded", "distributed"
WORDS = {EMBEDDED: "one server", DISTRIBUTED: "an api, two cpu workers and Postgres"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.mode == DISTRIBUTED and binaries() is None:
        say(REASON)
        return 1
    plan = Plan(options.seed, options.jobs, options.seconds_between_kills, most_seconds=options.minutes * 60)
    where = environment()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder, opened(options.mode, Path(folder)) as place:
        found = soak(place, plan, say)
    text = page(WORDS[options.mode], plan, found, environment_line(where))
    values = {
        "environment": where,
        "mode": options.mode,
        "plan": asdict(plan) | {"most_seconds": options.minutes * 60},
        "found": asdict(found),
    }
    values["found"] |= {"looks": [asdict(look) for look in found.looks[:: max(len(found.looks) // 40, 1)]]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results(f"soak-{options.mode}", values, text, options.output, day=day):
        say(str(written))
    return 0 if found.ended and not found.lost and not found.wrong else 1


@contextmanager
def opened(mode: str, folder: Path) -> Iterator[Place]:
    """Give a place that is up, and end it."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    if mode == EMBEDDED:
        server = EmbeddedPlace(folder)
        try:
            server.start()
            yield server
        finally:
            server.close()
        return
    found = binaries()
    assert found is not None
    with running_postgres(found) as database, running_fleet(folder, database.create_database(), "one", "two", version=REAL) as fleet:
        yield FleetPlace(fleet, database)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--mode", choices=(EMBEDDED, DISTRIBUTED), default=EMBEDDED)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds-between-kills", type=float, default=20.0, help="on average (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no job is sent after so long")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    return parser


_LOOKS_WRITTEN = 40
_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}  # in this process, which measures engines anew


if __name__ == "__main__":
    sys.exit(main())
