"""Kernel times go from job to job through a folder, where the target has some and the job shares them."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.registry import BACKENDS, Target
from engine_builder.config.builder_options import BuilderConfig
from engine_builder.config.config import Config, config_from_json
from engine_builder.engines.factory import CACHES, kept_timing_cache
from engine_builder.workspace.workspace import Workspace
from service.worker.kernel_times import shared_kernel_times, without_shared_times

NAME = "nvidia-l4-cc8.9-tensorrt11.4.0-driver580.timing.cache"
OTHER = "nvidia-t4-cc7.5-tensorrt11.4.0-driver580.timing.cache"


TARGETS = {**BACKENDS, "tensorrt": Target(lambda gpu, options: TensorRtBackend((8, 9), options=options), takes_gpu=True)}  # as if here
TENSORRT = config_from_json({"target": "tensorrt"})


def sharing(folder: Path | None, workspace: Path, config: Config = TENSORRT) -> AbstractContextManager[None]:
    return shared_kernel_times(folder, workspace, config, targets=TARGETS)


def built(workspace: Path, data: bytes, name: str = NAME) -> None:
    """Write what a build leaves."""
    (workspace / CACHES).mkdir(exist_ok=True, parents=True)
    (workspace / CACHES / name).write_bytes(data)


def test_what_a_job_measured_is_there_for_the_next_one(tmp_path: Path) -> None:
    shared, first, second = tmp_path / "shared", tmp_path / "1", tmp_path / "2"
    with sharing(shared, first):
        assert not (first / CACHES).exists()
        built(first, b"conv")
    with sharing(shared, second):
        assert (second / CACHES / NAME).read_bytes() == b"conv"
        built(second, b"conv, gemm")
    assert (shared / NAME).read_bytes() == b"conv, gemm"
    assert (shared.stat().st_mode & 0o077) == 0


def test_a_job_that_fails_leaves_what_it_measured(tmp_path: Path) -> None:
    def fail() -> None:
        with sharing(tmp_path / "shared", tmp_path / "1"):
            built(tmp_path / "1", b"conv")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "shared" / NAME).read_bytes() == b"conv"


def test_a_job_that_goes_on_after_a_restart_keeps_its_own(tmp_path: Path) -> None:
    built(tmp_path, b"old", NAME)
    (tmp_path / CACHES).rename(tmp_path / "shared")
    built(tmp_path / "1", b"own")
    with sharing(tmp_path / "shared", tmp_path / "1"):
        assert (tmp_path / "1" / CACHES / NAME).read_bytes() == b"own"


def test_what_ships_is_the_cache_that_the_job_wrote_and_not_a_lent_one(tmp_path: Path) -> None:
    for name in (NAME, OTHER):
        built(tmp_path, b"lent", name)
    (tmp_path / CACHES).rename(tmp_path / "shared")
    with sharing(tmp_path / "shared", tmp_path / "1"):
        built(tmp_path / "1", b"own", NAME)
        found = kept_timing_cache(Workspace(tmp_path / "1"))
    assert found is not None
    assert found.file.endswith(NAME)


def test_nothing_is_shared_by_a_job_that_says_so_nor_without_a_folder_nor_for_targets_without_kernel_times(tmp_path: Path) -> None:
    built(tmp_path, b"lent")
    (tmp_path / CACHES).rename(tmp_path / "shared")
    own = dataclasses.replace(TENSORRT, builder=BuilderConfig(share_kernel_times=False))
    for index, (folder, config) in enumerate(
        ((tmp_path / "shared", own), (None, TENSORRT), (tmp_path / "shared", config_from_json({"target": "onnxruntime-cpu"})))
    ):
        workspace = tmp_path / str(index)
        with sharing(folder, workspace, config):
            assert not (workspace / CACHES).exists()
            built(workspace, b"own")
        assert (tmp_path / "shared" / NAME).read_bytes() == b"lent"


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shared").write_text("a file")
    with sharing(tmp_path / "shared", tmp_path / "1"):
        built(tmp_path / "1", b"conv")
    assert "was not copied" in caplog.text


def test_a_job_that_is_set_apart_says_so_in_its_configuration_where_that_means_something() -> None:
    apart = without_shared_times(TENSORRT, targets=TARGETS)
    assert apart == dataclasses.replace(TENSORRT, builder=BuilderConfig(share_kernel_times=False))
    assert without_shared_times(apart, targets=TARGETS) == apart
    on_processors = config_from_json({"target": "onnxruntime-cpu"})
    assert without_shared_times(on_processors, targets=TARGETS) == on_processors
