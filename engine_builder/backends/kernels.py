"""What a builder says about the kernels of an engine: which of the model's nodes each runs, and in which number formats."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = "unknown"  # a name or a number format that the builder does not say, or in no words that we know


@dataclass(frozen=True, slots=True)
class KernelTensor:
    """A tensor that a kernel reads or writes."""

    dtype: str  # the builder's word, lower case: float, half, bfloat16, int8, fp8, int4, ...; or UNKNOWN
    shape: tuple[int, ...]  # empty where the builder does not say


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of an engine, in the order in which they run."""

    name: str
    kind: str  # the builder's layer type: correlation (convolution), gemm, kgen (pointwise), ...
    nodes: tuple[str, ...]  # names of the ONNX nodes that it runs, some of which other kernels may share
    inputs: tuple[KernelTensor, ...]
    constants: tuple[KernelTensor, ...]
    outputs: tuple[KernelTensor, ...]
    tactic: str | None = None  # the implementation that the builder chose, in its own words; None where it does not say


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What a kernel of an engine takes in one run."""

    names: tuple[str, ...]  # of the nodes of the engine's model that it runs, or of the tensors that it writes
    milliseconds: float  # median
    operator: str = ""  # the runtime's word for what it computes; empty where it does not say
    reads: str = ""  # element type of its first input, likewise
    elements: int = 0  # that it writes; 0 where the runtime does not say
    layer: str = ""  # the engine's own name for it, as its inspector has it; empty where there is none
    mean_ms: float = 0.0  # over ``runs``; both 0 where only a median is known
    runs: int = 0
