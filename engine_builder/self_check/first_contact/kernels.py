"""Kernels of our own on the GPU, through the driver alone, which compiles ``conversions.ptx`` itself. Not yet run on a GPU.

The context of whichever package opened the GPU must be current on the calling thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib import resources

from engine_builder.backends.gpu.visible_gpu import DRIVER
from engine_builder.errors import EngineError

ELEMENTS_A_THREAD = 8
_THREADS = 256
_TEXT = "conversions.ptx"
_Value = ctypes.c_uint64 | ctypes.c_uint32 | ctypes.c_float  # of a kernel's parameter


class Kernels:
    """The kernels of ``conversions.ptx``, loaded until ``close``."""

    def __init__(self, driver: str = DRIVER) -> None:
        """Let the driver compile them.

        Args:
            driver: Its library.

        Raises:
            EngineError: It refuses.
        """
        self._driver = ctypes.CDLL(driver)
        text = resources.files(__package__).joinpath(_TEXT).read_bytes()
        self._module = ctypes.c_void_p()
        self._check("cuModuleLoadData", self._driver.cuModuleLoadData(ctypes.byref(self._module), ctypes.c_char_p(text)))

    def nothing(self, stream: int) -> bool:
        """Queue a kernel that does nothing on the stream with this handle; returns whether it was taken."""
        return self._launch("nothing", stream, 1, 32, [])

    def convert(self, name: str, stream: int, source: int, target: int, elements: int, factor: float) -> bool:
        """Queue ``quantize`` (FP16 to INT8, the values times ``factor``) or ``dequantize`` (INT8 to FP16); returns whether it was taken.

        Args:
            name: Of the kernel.
            stream: Handle of a stream.
            source: Address on the GPU.
            target: Another one.
            elements: A multiple of ``ELEMENTS_A_THREAD``.
            factor: What values are multiplied with.
        """
        count = elements // ELEMENTS_A_THREAD
        values: list[_Value] = [
            ctypes.c_uint64(source),
            ctypes.c_uint64(target),
            ctypes.c_uint32(count),
            ctypes.c_float(factor),
        ]
        return self._launch(name, stream, -(-count // _THREADS), _THREADS, values)

    def close(self) -> None:
        """Free them."""
        self._driver.cuModuleUnload(self._module)

    def _launch(self, name: str, stream: int, blocks: int, threads: int, values: Sequence[_Value]) -> bool:
        function = ctypes.c_void_p()
        self._check("cuModuleGetFunction", self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode()))
        places = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(value) for value in values))
        status = self._driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, ctypes.c_void_p(stream), places, None)
        return bool(status == 0)

    def _check(self, name: str, status: int) -> None:
        if status != 0:
            raise EngineError(f"{name} failed with CUDA error {status}", fix="install a driver of branch 580 or newer")


def copied_on_gpu(stream: int, source: int, target: int, size_bytes: int, driver: str = DRIVER) -> bool:
    """Queue a copy from one place on the GPU to another on the stream with this handle; returns whether it was taken."""
    ask = ctypes.CDLL(driver).cuMemcpyDtoDAsync_v2
    status = ask(ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size_bytes), ctypes.c_void_p(stream))
    return bool(status == 0)
