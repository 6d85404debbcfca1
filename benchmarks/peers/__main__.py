"""Sets onnxruntime's one-line quantizers beside whole jobs: ``python -m benchmarks.peers``."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.kinds.case import Case
from benchmarks.peers.comparing import compared
from benchmarks.peers.networks import NETWORKS, own
from benchmarks.peers.page import behind, page, plot
from benchmarks.results_files import RESULTS, environment, write_results

BUDGETS = (0.99, 0.999)
PLOT = Path(__file__).resolve().parents[2] / "docs" / "images" / "peers.svg"


def main() -> int:
    """Make and measure all engines, write page and plot, print where they are, and return the exit status."""
    arguments = _arguments()
    networks = chosen(arguments)
    where = environment()
    found = []
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-peers-") as folder:
        for name, make in networks.items():
            found.append(compared(make(), BUDGETS, (arguments.keep or Path(folder)) / name))
            print(f"{name}: {behind(found[-1:])}", end="", flush=True)
    values = {"environment": where, "networks": [asdict(one) for one in found]}
    day = datetime.datetime.now(tz=datetime.UTC).date()
    for written in write_results("peers", values, page(found, where), arguments.output, day=day):
        print(written)
    arguments.plot.write_text(plot(found), encoding="utf-8")
    print(arguments.plot)
    return 0


def chosen(arguments: argparse.Namespace) -> Mapping[str, Callable[[], Case]]:
    """Return the networks that the command line names; all by default."""
    given = {
        name: partial(own, name, Path(model), Path(calibration), Path(validation), Path(unseen), int(batch))
        for name, model, calibration, validation, unseen, batch in arguments.own or ()
    }
    return given | {name: NETWORKS[name] for name in (NETWORKS if arguments.only is None else arguments.only)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="onnxruntime's one-line quantizers beside whole jobs.")
    parser.add_argument("--only", choices=sorted(NETWORKS), nargs="*", help="these networks alone; none: those of --own")
    own_files = ("NAME", "MODEL", "CALIBRATION", "VALIDATION", "UNSEEN", "BATCH")
    parser.add_argument("--own", nargs=6, action="append", metavar=own_files, help="a classifier of yours; UNSEEN holds 'labels'")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the files of all engines are left")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the plot is written (default: docs/images/peers.svg)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
