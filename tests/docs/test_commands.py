from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.commands import commands, problem
from tests.docs.pages import PAGES, Block, blocks, name_of, spans

NOT_RUN = [block for page in PAGES for block in blocks(page) if "not-run" in block.marks]
BEGINNINGS = ("make ", "onnx-trt-optimizer ", "python -m ", ".venv/bin/python ", "docker ", "pip ")


@pytest.mark.parametrize("block", [block for block in NOT_RUN if block.language == "bash"], ids=str)
def test_commands_that_no_test_runs_name_what_is_there(block: Block) -> None:
    found = commands(block.text)
    assert found
    assert [(words, problem(words)) for words in found if problem(words)] == []


@pytest.mark.parametrize("block", [block for block in NOT_RUN if block.language == "python"], ids=str)
def test_python_that_no_test_runs_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_name_what_is_there(page: Path) -> None:
    found = [words for span in spans(page) if span.startswith(BEGINNINGS) for words in commands(span)]
    assert [(words, problem(words)) for words in found if problem(words)] == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make demonstration", "no target of make 'demonstration'"),
        ("onnx-trt-optimizer optimise model.onnx", "no command 'optimise'"),
        ("onnx-trt-optimizer submit model.onnx --wait", "no option '--wait'"),
        ("KEY=1 python -m benchmarks.nothing", "no module 'benchmarks.nothing'"),
        ("python -m benchmarks.jobs --models X", "no option '--models'"),
        ("python examples/nothing.py", "no file 'examples/nothing.py'"),
        ("docker build -f docker/Dockerfile --target tpu .", "no stage 'tpu'"),
        ("docker compose -f compose.yaml up", "no file 'compose.yaml'"),
        ("pip install '.[rtx,tpu]'", "no extra 'tpu'"),
        ("rm -rf out", "no rule for 'rm'"),
    ],
)
def test_a_command_that_names_what_is_not_there_is_found(command: str, expected: str) -> None:
    (words,) = commands(command)
    assert problem(words) == expected


def test_a_script_is_taken_apart_into_its_commands() -> None:
    script = "cd x && make demo  # a comment\nA=b onnx-trt-optimizer watch \\\n    JOB | cat\n"
    assert commands(script) == [["cd", "x"], ["make", "demo"], ["onnx-trt-optimizer", "watch", "JOB"], ["cat"]]
