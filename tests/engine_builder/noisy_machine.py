"""A machine with clocks of its own on which engines of known times run beside noise of several kinds.

Engines are fakes that move the clocks: a run takes the engine's true time, times what the machine is like at the moment. The CPU clock sees
what disturbs the run itself (caches, frequency); the wall clock sees the waiting of a busy machine, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

NOISES = ("jitter", "spikes", "drift", "modes")


class NoisyMachine:
    """Its clocks stand still but for runs. Seeded: the same engines in the same order take the same times."""

    def __init__(self, noise: str, seed: int, *, scale: float = 1.0) -> None:
        """Start.

        Args:
            noise: One of ``NOISES``: ``jitter`` is normal, 2%; of ``spikes`` one run in eight takes up to several times as long; ``drift``
                is a slow wave of 30% beside a jitter of 1.5%; of ``modes`` each block of time is slow (4%) or fast by chance.
            seed: Of the noise.
            scale: Times the jitter.
        """
        self._noise, self._scale = noise, scale
        self._rng = np.random.default_rng([seed, NOISES.index(noise)])
        self._phase = float(self._rng.uniform(0.0, 2.0 * np.pi))
        self._now = 0.0
        self._spent = 0.0
        self._mode, self._mode_ends = 1.0, 0.0
        self.runs = 0

    def clock(self) -> float:
        """Return the seconds of the wall clock."""
        return self._now

    def cpu(self) -> float:
        """Return the CPU seconds of the calling thread."""
        return self._spent

    def engine(self, seconds: float) -> Callable[[], None]:
        """Return a run of an engine that truly takes so many seconds."""

        def run() -> None:
            self.runs += 1
            spent = seconds * self._slowness()
            self._spent += spent
            self._now += spent * float(self._rng.uniform(1.0, 3.0))

        return run

    def _slowness(self) -> float:
        jitter = 1.0 + 0.02 * self._scale * float(self._rng.standard_normal())
        if self._noise == "spikes" and self._rng.random() < 0.125:
            return jitter + float(self._rng.exponential(1.0))
        if self._noise == "drift":
            return (1.0 + 0.75 * (jitter - 1.0)) * (1.0 + 0.3 * math.sin(self._spent / 2.0 + self._phase))
        if self._noise == "modes":
            if self._spent >= self._mode_ends:
                self._mode = 1.0 + 0.04 * self._scale * float(self._rng.integers(2))
                self._mode_ends = self._spent + float(self._rng.exponential(0.02))
            return self._mode * (1.0 + 0.25 * (jitter - 1.0))
        return jitter
