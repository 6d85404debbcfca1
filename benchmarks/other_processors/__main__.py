"""Runs a command as if on an older processor: ``python -m benchmarks.other_processors vnni make test``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.other_processors.hiding import Hidden, hiding, hindrance


def main() -> int:
    """Run the command and return its exit status; 69 where nothing can be hidden."""
    description = "Run a command with instruction sets hidden from its programs."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_processors", description=description)
    parser.add_argument("hidden", choices=[one.value for one in Hidden], help="vnni: AVX-512 without VNNI; avx512: AVX2 alone")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command is given: name the program to run")
    if (reason := hindrance()) is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-processor-") as folder:
        return subprocess.run(hiding(Hidden(arguments.hidden), arguments.command, Path(folder)), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
