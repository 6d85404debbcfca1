from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.worker.warm_parent import WarmParent
from tests.service.worker.running import warm


@pytest.fixture(scope="module")
def warm_parent() -> Iterator[WarmParent]:
    with warm() as parent:
        yield parent
