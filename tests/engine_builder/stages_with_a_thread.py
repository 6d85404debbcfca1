"""A table of stages whose import starts a thread, which a fork would lack."""

from __future__ import annotations

import threading

from tests.engine_builder.misbehaving_stages import STAGES as STAGES

threading.Thread(target=threading.Event().wait, daemon=True).start()
