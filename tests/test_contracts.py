"""Every protocol has a contract: a class of tests that all its implementations inherit, those that only pretend too.

Stand-ins that one module of tests makes for itself, to give one answer, are left out.
"""

from __future__ import annotations

import ast

from tests.test_layout import PACKAGES, SOURCES

# Protocols that are handed out by another, with whose contract they are tested.
PARTS = {
    "DeviceBuffer": "CudaRuntimeContract",
    "Eligibility": "DialectContract",
    "Event": "CudaRuntimeContract",
    "Graph": "CudaRuntimeContract",
    "Observer": "DriverContract",
    "RunStage": "DriverContract",
    "StoreWriter": "ArtifactStoreContract",
    "Stream": "CudaRuntimeContract",
}
# Protocols without one, and why.
WITHOUT = {
    "Ahead": "TrialsAhead alone, which works on real processes only: tests/distributed/test_trials_ahead.py",
    "_Steps": "the decompressors of the standard library, which are not ours",
    "_Operator": "one attribute of classes of onnx and onnx_ir, which are not ours",
    "FileSystem": "a few methods of the file systems of fsspec, which are not ours",
    "Monitor": "a class of TensorRT's module, made by one function",
    "OutputAllocator": "a class of TensorRT's module, made by one function",
    "RunChild": "run_in_child alone; tests give it another table of stages",
    "StageFunction": "the functions that the table of stages names; the law over that table holds their requests and results",
    "TensorRtLogger": "a class of TensorRT's module, made by one function",
}


def classes(*folders: str) -> dict[str, set[str]]:
    """Return the names of the bases of each class, by the class's name; a name that two classes have has the bases of both."""
    found: dict[str, set[str]] = {}
    for name, text in SOURCES.items():
        if name.split("/")[0] in folders:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).update(ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases)
    return found


PROTOCOLS = {name for name, bases in classes(*PACKAGES).items() if "Protocol" in bases}
TESTS = classes("tests")
CONTRACTS = {name for name in TESTS if name.endswith("Contract")}


def contract_of(protocol: str) -> str:
    return PARTS.get(protocol, f"{protocol.lstrip('_')}Contract")


def ancestors(name: str) -> set[str]:
    bases = TESTS.get(name, set())
    return bases.union(*map(ancestors, bases))


def test_every_protocol_has_a_contract_or_a_reason_for_none() -> None:
    assert {name: contract_of(name) for name in PROTOCOLS - WITHOUT.keys() if contract_of(name) not in CONTRACTS} == {}


def test_every_contract_is_kept_by_an_implementation() -> None:
    kept = set().union(*(ancestors(name) for name in TESTS if name.startswith("Test")))
    assert kept >= CONTRACTS


def test_what_is_listed_here_is_there() -> None:
    assert PARTS.keys() | WITHOUT.keys() <= PROTOCOLS
    assert {name for name in WITHOUT if contract_of(name) in CONTRACTS} == set()
