from __future__ import annotations

from pathlib import Path

import pytest

from engine_builder.backends.onnxruntime.instruction_sets import instruction_sets


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("flags\t\t: fpu avx avx2 avx512f avx512_vnni", ("AVX2", "AVX-512", "AVX-512 VNNI")),
        ("Features\t: fp asimd asimddp i8mm", ("dot products", "I8MM")),
        ("flags\t\t: fpu avx", ()),
    ],
)
def test_the_sets_of_the_first_processor_are_named(tmp_path: Path, line: str, names: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\nflags\t\t: amx_int8\n")
    assert instruction_sets(tmp_path / "cpuinfo") == names


def test_a_system_that_does_not_say_has_none(tmp_path: Path) -> None:
    assert instruction_sets(tmp_path / "cpuinfo") == ()
