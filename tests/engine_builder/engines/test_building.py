"""What stages rely on of whatever gives them the backend that builds a job's engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import onnx
import pytest

from engine_builder.backends.base import Backend
from engine_builder.config.config import Config
from engine_builder.engines.factory import Building, building_backend
from engine_builder.workspace.workspace import StageContext, Workspace
from tests.engine_builder.fake_levels import Levels
from tests.model_text import cnn


class BuildingContract(ABC):
    @abstractmethod
    def building(self) -> Building:
        """Return it."""

    @pytest.fixture
    def backends(self, tmp_path: Path) -> tuple[Backend, Backend]:
        """Return the backends of a job's search and of its end."""
        context = StageContext(Workspace(tmp_path / "job"), tmp_path, lambda fraction, message: None)
        building = self.building()
        return building(Config(), context), building(Config(), context, final=True)

    def test_search_and_end_build_for_one_target(self, backends: tuple[Backend, Backend]) -> None:
        search, end = backends
        assert search.capabilities == end.capabilities
        assert search.capabilities.target == Config().target

    def test_engines_of_either_level_can_be_opened(self, backends: tuple[Backend, Backend], tmp_path: Path) -> None:
        onnx.save_model(cnn(), tmp_path / "explicit.onnx")
        for number, backend in enumerate(backends):
            engine = backend.build(tmp_path / "explicit.onnx", tmp_path / f"engine{number}.onnx")
            backend.open(engine.path, threads=1).close()


class TestBuildingBackend(BuildingContract):
    def building(self) -> Building:
        return building_backend


class TestLevels(BuildingContract):
    def building(self) -> Building:
        return Levels()
