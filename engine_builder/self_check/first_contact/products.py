"""Matrix products on the GPU through cuBLAS, where it is installed: what precisions are worth. Not yet run on a GPU."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine_builder.backends.gpu.cuda_runtime import DeviceBuffer, Stream
from engine_builder.errors import EngineError, UnsupportedTargetError

NAMES = ("libcublas.so.13", "libcublas.so.12")
_PLACES = ("cu13/lib", "cublas/lib")  # of NVIDIA's wheels, below the package nvidia


@dataclass(frozen=True, slots=True)
class Form:
    """How cuBLAS is asked for a product of one precision: its numbers of types and of arithmetic."""

    name: str
    element_bytes: int
    element: int  # cudaDataType
    result: int
    arithmetic: int  # cublasComputeType
    is_integer: bool = False


# TF32 is what a float32 engine computes with.
FORMS = (Form("fp32", 4, 0, 0, 77), Form("bf16", 2, 14, 14, 68), Form("fp16", 2, 2, 2, 68), Form("int8", 1, 3, 10, 72, is_integer=True))


def cublas_path() -> str:
    """Return what the library is loaded by.

    Raises:
        UnsupportedTargetError: It is not installed.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(place) / part for place in spec.submodule_search_locations or () for part in _PLACES]
    for name in (*NAMES, *(str(folder / name) for folder in folders for name in NAMES if (folder / name).is_file())):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise UnsupportedTargetError("cuBLAS is not installed", fix="pip install nvidia-cublas, if the speed of products is to be known too")


class Products:
    """Products of matrices of the same size, inputs and result on the GPU; what the inputs hold does not matter."""

    def __init__(self, library: str) -> None:
        """Start cuBLAS.

        Args:
            library: What it is loaded by.

        Raises:
            EngineError: It does not start.
        """
        self._cublas = ctypes.CDLL(library)
        self._handle = ctypes.c_void_p()
        status = self._cublas.cublasCreate_v2(ctypes.byref(self._handle))
        if status != 0:
            raise EngineError(f"cuBLAS does not start (status {status})", fix="install the version that belongs to the driver")

    def queue(self, form: Form, side: int, buffers: tuple[DeviceBuffer, DeviceBuffer, DeviceBuffer], stream: int) -> bool:
        """Queue the product of two square matrices on the stream with this handle; returns whether it was taken."""
        one, zero = (ctypes.c_int32(1), ctypes.c_int32(0)) if form.is_integer else (ctypes.c_float(1), ctypes.c_float(0))
        left, right, result = (ctypes.c_uint64(buffer.address) for buffer in buffers)
        if self._cublas.cublasSetStream_v2(self._handle, ctypes.c_void_p(stream)) != 0:
            return False
        status = self._cublas.cublasGemmEx(
            *(self._handle, 1, 0, side, side, side, ctypes.byref(one), left, form.element, side),  # transposed, as integers must be
            *(right, form.element, side, ctypes.byref(zero), result, form.result, side, form.arithmetic, -1),
        )
        return bool(status == 0)

    def close(self) -> None:
        """Stop cuBLAS."""
        self._cublas.cublasDestroy_v2(self._handle)


@dataclass(frozen=True, slots=True)
class ProductWork:
    """One product, as ``time_on_gpu`` takes it."""

    products: Products
    form: Form
    side: int
    buffers: tuple[DeviceBuffer, DeviceBuffer, DeviceBuffer]

    def enqueue(self, stream: int) -> bool:
        """Queue it."""
        return self.products.queue(self.form, self.side, self.buffers, stream)

    def copy_in(self, stream: Stream) -> None:
        """Nothing is copied."""

    def copy_out(self, stream: Stream) -> None:
        """Nothing is copied."""


def buffer_sizes(side: int) -> Iterator[int]:
    """Return the bytes of the two inputs and the result that hold any of the forms."""
    widest = max(form.element_bytes for form in FORMS)
    return iter((side * side * widest, side * side * widest, side * side * 4))
