"""What the tests of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine_builder.report_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
