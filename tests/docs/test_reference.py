"""What the pages list is what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest

import engine_builder.errors
import service.errors  # the whole tree of errors must be loaded
from calibration.accuracy.metrics import Metric
from calibration.errors import OptimizerError
from engine_builder.backends.registry import BACKENDS
from engine_builder.config.config import json_schema
from engine_builder.config.reference import with_reference
from engine_builder.pipeline.stage_table import STAGES
from engine_builder.search.search import DEFAULT_MAX_TRIALS
from examples.demo import result_lines
from service.api.app import create_app
from service.jobs.resources import open_deps
from service.settings import PREFIX, Settings
from tests.docs.pages import ROOT, blocks, table

DOCS = ROOT / "docs"
CONFIGURATION, HTTP_API, ARCHITECTURE = (DOCS / name for name in ("configuration.md", "http-api.md", "architecture.md"))
GIB = 2**30
MIB = 2**20


def statuses(cls: type[OptimizerError]) -> set[str]:
    return {str(cls.status)}.union(*(statuses(sub) for sub in cls.__subclasses__() if sub.__module__.endswith(".errors")))


def setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and value % GIB == 0:
        return f"{value // GIB} GiB"
    if isinstance(value, int) and value % MIB == 0:
        return f"{value // MIB} MiB"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def test_the_tables_of_the_configuration_are_up_to_date() -> None:
    page = CONFIGURATION.read_text(encoding="utf-8")
    assert page == with_reference(page, json_schema()), "run `make docs`"


def test_every_metric_is_explained() -> None:
    explained = {name for cells in table(CONFIGURATION, "The accuracy budget") for name in re.findall(r"`(\w+)`", cells[0])}
    assert explained == {metric.value for metric in Metric}


def test_the_default_of_the_trials_is_the_one_of_the_search() -> None:
    assert f"{DEFAULT_MAX_TRIALS} by default" in CONFIGURATION.read_text(encoding="utf-8")


def test_every_route_is_listed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    deps = open_deps(settings)
    paths = create_app(settings, deps).openapi()["paths"]
    deps.close()
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    listed = {route for cells in table(HTTP_API, "Routes") for route in re.findall(r"`([A-Z]+ \S+)`", cells[0])}
    assert listed == routes | {"GET /", "GET /docs", "GET /openapi.json"}


def test_every_status_of_an_error_is_listed() -> None:
    assert service.errors.ServiceError in OptimizerError.__subclasses__()[0].__subclasses__()
    assert engine_builder.errors.EngineError in OptimizerError.__subclasses__()
    assert {cells[0].strip("| ") for cells in table(HTTP_API, "Errors")} == statuses(OptimizerError)


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {cells[0].strip("`| "): cells[1] for cells in table(DOCS / "operations.md", "Settings")}
    assert listed == {PREFIX + field.name.upper(): setting(field.default) for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "targets.md"], ids=lambda page: page.name)
def test_every_target_is_listed(page: Path) -> None:
    assert {cells[0].strip("`| ") for cells in table(page, "Targets")} == set(BACKENDS)


@pytest.mark.parametrize("folder", ["calibration", "engine_builder", "service"])
def test_packages_are_listed_in_the_order_of_their_layers(folder: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == [folder])
    packages = [{name for name in layer.split(" | ") if (ROOT / folder / name).is_dir()} for layer in layers]
    listed = [set(re.findall(rf"`{folder}/(\w+)`", cells[0])) for cells in table(ARCHITECTURE, f"`{folder}`")]
    assert listed == [names for names in packages if names]


def test_every_stage_is_listed_with_its_module() -> None:
    rows = table(ARCHITECTURE, "How a job runs")
    modules = {path.name for path in (ROOT / "engine_builder" / "stages").rglob("*.py")} - {"__init__.py"}
    assert {cells[0].strip("`| ") for cells in rows} == set(STAGES)
    assert {Path(cells[1].strip("`")).name for cells in rows} == modules


def test_the_example_of_the_readme_has_the_lines_that_the_demo_prints() -> None:
    (result,) = (json.loads(block.text) for block in blocks(DOCS / "data-formats.md") if "answer" in block.marks)
    (example,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "text")
    shown = [line[2:16].strip() for line in example.splitlines()[1:]]
    assert shown == [*(line[:14].strip() for line in result_lines(result)), "from outside", ""]
