"""Flags of a job stand in the place of the same keys of the configuration file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from calibration.errors import InvalidConfigError
from engine_builder.config.config import Config
from service.cli.commands import job_config

FLAGS = ("target", "gpu", "batch_size", "metric", "min_relative", "max_drop", "min_score", "min_speedup", "max_latency_ms")


def found(folder: Path, file: object, **flags: object) -> Config:
    (folder / "config.json").write_text(json.dumps(file))
    return job_config(argparse.Namespace(config=folder / "config.json", **{**dict.fromkeys(FLAGS), **flags}))


def test_flags_override_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = {"batch_size": 4, "threads": 2, "accuracy": {"metric": "top5", "confidence": 0.9, "min_relative": 0.9}}
    config = found(tmp_path, file, batch_size=16, metric="top1", min_relative=0.99)
    assert (config.batch_size, config.threads) == (16, 2)
    assert (config.accuracy.metric, config.accuracy.min_relative, config.accuracy.confidence) == ("top1", 0.99, 0.9)


@pytest.mark.parametrize(("flag", "value"), [("max_drop", 0.0), ("min_score", 0.7)])
def test_a_budget_takes_the_place_of_one_that_is_stated_otherwise(flag: str, value: float, tmp_path: Path) -> None:
    config = found(tmp_path, {"accuracy": {"min_relative": 0.9, "confidence": 0.9}}, **{flag: value})
    assert config.accuracy.min_relative is None
    assert getattr(config.accuracy, flag) == value
    assert config.accuracy.confidence == 0.9


def test_a_metric_alone_leaves_the_files_budget(tmp_path: Path) -> None:
    assert found(tmp_path, {"accuracy": {"max_drop": 0.1}}, metric="top1").accuracy.max_drop == 0.1


@pytest.mark.parametrize(
    ("file", "flags", "detail"),
    [
        ({}, {"max_drop": 0.1, "min_score": 0.7}, "found max_drop and min_score, expected one budget"),
        ({}, {"max_drop": 0.1, "min_speedup": 2.0}, "found objective together with accuracy.max_drop"),
        ({"objective": {"min_speedup": 2}}, {"min_relative": 0.9}, "found objective together with accuracy.min_relative"),
        ({"accuracy": 3}, {"min_relative": 0.9}, "accuracy: found 3, expected an object"),
        ({}, {"metric": "top2"}, "accuracy.metric: found 'top2'"),
        ({}, {"batch_size": 0}, "batch_size: found 0"),
    ],
)
def test_flags_that_contradict_are_an_error(file: object, flags: dict[str, object], detail: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError) as raised:
        found(tmp_path, file, **flags)
    assert detail in raised.value.detail
