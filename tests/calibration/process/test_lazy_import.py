"""Stand-ins for modules: nothing is imported before it is asked for, and then they are the module."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from calibration.process.lazy_import import defer, deferred

PACKAGE = """
import sys
print("imported")
def twice(value):
    return 2 * value
class Kind:
    pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that prints when it is imported."""
    (tmp_path / "slow_to_import.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)
    return "slow_to_import"


def test_a_stand_in_imports_the_module_when_a_name_is_asked_for(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = deferred(package)
    assert package not in sys.modules
    assert module.twice(4) == 8
    assert capsys.readouterr().out == "imported\n"
    sys.modules.pop(package)


def test_a_deferred_module_is_the_real_one_once_a_name_is_asked_for(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    defer(package)
    import slow_to_import as stand_in  # type: ignore[import-not-found]  # the fixture writes it

    assert capsys.readouterr().out == ""
    kind = stand_in.Kind
    assert sys.modules.pop(package).Kind is kind
    assert capsys.readouterr().out == "imported\n"


def test_a_function_imports_the_module_when_it_is_called(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    defer(package, ("twice",))
    import slow_to_import as stand_in

    twice = stand_in.twice
    assert capsys.readouterr().out == ""
    assert twice(3) == 6
    assert capsys.readouterr().out == "imported\n"
    sys.modules.pop(package)


def test_a_module_that_is_there_already_stays() -> None:
    defer("fractions")
    assert sys.modules["fractions"].Fraction is Fraction


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = deferred("math").no_such_function


def test_the_graph_library_does_without_sympy_until_sizes_are_computed() -> None:
    code = """
import json, sys
from calibration.process.lazy_import import defer
from service.worker.child_main import ONNX_IR_FUNCTIONS
defer("sympy", ONNX_IR_FUNCTIONS)
import onnx_ir
before = "sympy.core" in sys.modules
total = onnx_ir.SymbolicDim("N") + 1
print(json.dumps([before, "sympy.core" in sys.modules, str(total.value), str(onnx_ir.SymbolicDim("max(N, 2)") + 1)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, total, larger = json.loads(done.stdout)
    assert not before
    assert after
    assert total.replace(" ", "") == "N+1"
    assert "Max" in larger or "max" in larger
