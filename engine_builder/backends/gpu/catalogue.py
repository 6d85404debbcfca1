"""What is known of GPUs: compute capability, and the published peaks that a latency is predicted from.

The figures lie in ``gpus.json``: per GPU what its vendor publishes, with the source, and once for all of them what nobody publishes and is
therefore assumed. A GPU's entry may carry a key of the assumptions itself, measured on such a GPU; then that value holds for it.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from calibration.number_formats.precision import Precision
from engine_builder.errors import UnsupportedTargetError

CONVERTED_BYTES = 3  # of one element: FP16 on one side, one byte on the other
_VENDOR_WORDS = re.compile(r"\b(nvidia|geforce|quadro|tesla)\b|[\s\-_]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One type of GPU. Peaks are the vendor's: dense, at boost clock, FP32 accumulation but for fp16 on GeForce, where FP16 doubles it."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_gb: float
    bandwidth_gb_s: float  # of its memory, 1e9 bytes a second
    l2_mb: float  # second-level cache, 2**20 bytes
    tflops: Mapping[str, float]  # 1e12 operations a second (a multiplication and an addition are two), by Precision
    source: str  # where the figures are published
    launch_us: float  # from the end of a kernel to the next one's start, in a CUDA graph
    compute_share: float  # 0-1 of the peak that large kernels reach
    bandwidth_share: float  # 0-1 of the bandwidth that large kernels reach
    l2_factor: float  # the cache's bandwidth over the memory's
    tile_elements: int  # outputs of a product that one multiprocessor computes at a time
    error: float  # 0-1, the prediction's relative error

    def __post_init__(self) -> None:
        """Check that every figure can be divided by."""
        figures = (
            self.multiprocessors,
            self.memory_gb,
            self.bandwidth_gb_s,
            self.l2_mb,
            self.compute_share,
            self.bandwidth_share,
            self.l2_factor,
            self.tile_elements,
        )
        if min(*figures, *self.tflops.values()) <= 0:
            raise ValueError(f"{self.name}: found a figure that is not positive, expected positive ones: {self}")
        if not 0 <= self.error < 1 or self.launch_us < 0:
            raise ValueError(
                f"{self.name}: found error {self.error} and launch_us {self.launch_us}, expected 0 <= error < 1 and no negative time"
            )

    def has(self, precision: Precision) -> bool:
        """Whether engines for the GPU may use the precision."""
        return precision.runs_on(self.compute_capability)

    @property
    def conversion_ms(self) -> float:
        """Milliseconds of bringing one element of a large tensor from FP16 into a low precision or back, as the memory lets it."""
        return CONVERTED_BYTES / (self.bandwidth_gb_s * self.bandwidth_share * 1e9) * 1e3

    def operations_per_second(self, precision: Precision) -> float:
        """Return the published peak of a precision; of one for weights alone FP16's, in which the multiplications are done.

        Raises:
            KeyError: The GPU has no such arithmetic.
        """
        return self.tflops[(Precision.FP16 if precision.is_weight_only else precision).value] * 1e12


def gpu_by_name(name: str) -> Gpu:
    """Return the GPU of that name, as the driver gives it or without the vendor's words, in any case: ``NVIDIA GeForce RTX 4090``, ``l4``.

    Raises:
        UnsupportedTargetError: No such GPU is known; the nearest name is suggested.
    """
    found = _by_key().get(_key(name))
    if found is None:
        near = difflib.get_close_matches(_key(name), _by_key(), n=1)
        raise UnsupportedTargetError(
            f"gpu: {name!r} is unknown, expected one of {', '.join(gpu.name for gpu in known_gpus())}",
            fix=f"use {_by_key()[near[0]].name!r}" if near else "choose a GPU of the list",
        )
    return found


def known_gpus() -> tuple[Gpu, ...]:
    """Return every GPU of the data file, in its order."""
    return tuple(gpu for gpu, _ in _table())


def typical_conversion_ms(compute_capability: tuple[int, int] | None) -> float:
    """Return ``Gpu.conversion_ms`` of a GPU that is not listed: the median of those of its generation, of all where there are none.

    Args:
        compute_capability: The GPU's, None where it is not known.
    """
    known = known_gpus()
    same = [gpu for gpu in known if compute_capability is not None and gpu.compute_capability[0] == compute_capability[0]]
    return statistics.median(gpu.conversion_ms for gpu in same or known)


def gpus_from_json(text: str) -> tuple[tuple[Gpu, tuple[str, ...]], ...]:
    """Return the GPUs of a data file's text, each with its other names.

    Raises:
        ValueError: A figure is missing or impossible.
    """
    data = json.loads(text)
    return tuple(
        (
            Gpu(
                name=row["name"],
                compute_capability=(int(row["compute_capability"][0]), int(row["compute_capability"][1])),
                multiprocessors=row["multiprocessors"],
                memory_gb=row["memory_gb"],
                bandwidth_gb_s=row["bandwidth_gb_s"],
                l2_mb=row["l2_mb"],
                tflops=row["tflops"],
                source=row["source"],
                **{key: row.get(key, assumed) for key, assumed in data["assumed"].items()},
            ),
            tuple(row["also"]),
        )
        for row in data["gpus"]
    )


def _key(name: str) -> str:
    return _VENDOR_WORDS.sub("", name).lower()


@functools.cache
def _table() -> tuple[tuple[Gpu, tuple[str, ...]], ...]:
    return gpus_from_json(resources.files("engine_builder.backends.gpu").joinpath("gpus.json").read_text(encoding="utf-8"))


@functools.cache
def _by_key() -> Mapping[str, Gpu]:
    return {_key(name): gpu for gpu, others in _table() for name in (gpu.name, *others)}
