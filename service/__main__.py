"""The command line: ``onnx-trt-optimizer COMMAND`` or ``python -m service COMMAND``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from service.worker.stage_process import IDLE, NO_TELEMETRY


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors go to stderr as two lines, ``error:`` and ``fix:``.

    Args:
        argv: Its arguments; by default those of this process, which is the command's own then.
    """
    for name, value in IDLE.items():
        os.environ.setdefault(name, value)
    os.environ.update(NO_TELEMETRY)
    from service.cli.program import run_command  # the libraries read the environment when they are imported

    return run_command(argv)


if __name__ == "__main__":
    sys.exit(main())
