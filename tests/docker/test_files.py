"""The Dockerfile and the compose file, by the linters that know their formats."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from service.settings import PREFIX, Settings
from tests.docs.commands import problem

COMPOSE_FILES = ("compose.yaml", "compose.distributed.yaml")
ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; `make test` installs it")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(tool("hadolint"), DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN apt-get install curl\nCMD serve\n")
    done = run(tool("hadolint"), tmp_path / "Dockerfile")
    assert done.returncode != 0
    assert "DL3025" in done.stdout  # CMD without its exec form


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_the_compose_file_follows_the_specification(name: str) -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DOCKER / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_what_the_compose_file_sets_and_runs_is_there(name: str) -> None:
    services = YAML(typ="safe").load(DOCKER / name)["services"].values()
    ours = [service for service in services if "build" in service]
    assert ours
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    for service in ours:
        assert {key for key in service["environment"] if key.startswith(PREFIX)} <= known
        assert problem(["onnx-trt-optimizer", *service.get("command", ["serve"])]) is None


def test_workers_and_api_of_the_compose_file_share_all_that_they_have_to() -> None:
    services = YAML(typ="safe").load(DOCKER / "compose.distributed.yaml")["services"]
    ours = [services[name] for name in ("api", "cpu", "gpu")]
    shared = {PREFIX + "DATABASE_URL", PREFIX + "SHARED_DIR", PREFIX + "OBJECT_STORE", "AWS_ENDPOINT_URL_S3", "AWS_SECRET_ACCESS_KEY"}
    assert all(shared <= set(service["environment"]) for service in ours)
    assert all(service["environment"][name] == ours[0]["environment"][name] for service in ours for name in shared)
    assert all(service["volumes"] == ["shared:/shared"] and service["image"] == ours[0]["image"] for service in ours)


def test_a_misspelt_key_of_a_compose_file_would_be_found(tmp_path: Path) -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(text.replace("healthcheck:", "healthchek:"))
    assert run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml").returncode != 0


def test_the_gpu_image_pins_all_that_the_extras_ask_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = pins(DOCKER / "gpu-requirements.txt") | pins(DOCKER / "pycuda-requirements.txt")
    asked = {re.split(r"[<>=]", requirement)[0] for requirement in (*extras["gpu"], *extras["pycuda"])}
    assert asked <= set(pinned)


def versions(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {line.split()[0] for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))}


def test_the_images_have_what_object_stores_need_beside_the_locked_packages() -> None:
    added = versions("s3.txt") - versions("runtime.txt")
    assert versions("runtime.txt") <= versions("s3.txt") <= versions("dev.txt")
    assert "s3fs" in {line.split("==")[0] for line in added}


def test_the_rtx_image_adds_tensorrt_rtx_to_the_locked_packages_and_changes_none() -> None:
    added = versions("rtx.txt") - versions("runtime.txt")
    assert versions("runtime.txt") <= versions("rtx.txt")
    assert {line.split("==")[0] for line in added} == {"tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"}


def test_the_three_packages_of_tensorrt_have_one_version() -> None:
    pinned = pins(DOCKER / "gpu-requirements.txt")
    assert len({version for name, version in pinned.items() if name.startswith("tensorrt")}) == 1


def test_the_build_context_holds_every_file_that_is_copied() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    sources = [part for copy in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for part in copy.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    allowed = {entry[1:].split("/")[0] for entry in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if entry[:1] == "!"}
    assert {source.split("/")[0] for source in sources} <= allowed
