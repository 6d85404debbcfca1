from __future__ import annotations

from pathlib import Path

from service.local.reuse import default_cache_folder


def test_the_folder_is_the_users_own() -> None:
    assert default_cache_folder({"XDG_CACHE_HOME": "/x", "HOME": "/home/me"}) == Path("/x/onnx-trt-optimizer")
    assert default_cache_folder({"HOME": "/home/me"}) == Path("/home/me/.cache/onnx-trt-optimizer")


def test_a_relative_folder_is_passed_over_as_its_standard_asks() -> None:
    assert default_cache_folder({"XDG_CACHE_HOME": "x", "HOME": "/home/me"}) == Path("/home/me/.cache/onnx-trt-optimizer")


def test_without_a_home_there_is_none() -> None:
    assert default_cache_folder({}) is None
    assert default_cache_folder({"HOME": ""}) is None
