"""Says what probes compute with on this machine: run as a program, since whoever opens CUDA holds a part of the GPU until it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping

from calibration.execution.provider import Provider

logger = logging.getLogger(__name__)

SECONDS = 120.0  # CUDA's libraries are a GB, which a cold disk gives slowly


def provider_here(environment: Mapping[str, str], seconds: float = SECONDS) -> Provider:
    """Return CUDA where ONNX Runtime has it and a session opens with it in a process with this environment, else the CPU.

    Args:
        environment: Of the process that tries it.
        seconds: After which it is ended, and taken not to have it.
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=dict(environment))
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("CUDA is not tried for probes: %s", error)
        return Provider.CPU
    said = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0 and said in set(Provider):
        return Provider(said)
    logger.warning("CUDA does not work for probes: %s", done.stderr.strip()[-300:])
    return Provider.CPU


if __name__ == "__main__":
    from calibration.execution.onnxruntime_session import probe_provider  # which takes long to import, and is used here alone

    sys.stdout.write(probe_provider().value)
