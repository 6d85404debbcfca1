from __future__ import annotations

import subprocess
import sys

import pytest

from calibration.errors import InvalidConfigError
from service.object_store.filesystem import open_filesystem


def test_a_missing_package_is_said_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InvalidConfigError, match="no package s3fs") as raised:
        open_filesystem()
    assert "onnx-trt-optimizer[s3]" in raised.value.fix


def test_a_server_alone_does_not_load_what_speaks_to_object_stores() -> None:
    code = "import service.api.app, service.distributed.worker_process, sys; print({'fsspec', 's3fs', 'botocore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
