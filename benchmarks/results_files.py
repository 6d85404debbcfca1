"""Writes what a benchmark found: a dated JSON with the environment it was measured in, and Markdown tables of the same."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

RESULTS = Path(__file__).resolve().parent / "results"
_INTEGER_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")  # what decides how fast, and how exact, int8 is


def environment() -> dict[str, object]:
    """Return what a figure depends on besides the code: processor, system, versions, processors at hand and their load."""
    processor, flags = _processor()
    return {
        "processor": processor,
        "integer_instructions": [flag for flag in _INTEGER_FLAGS if flag in flags],
        "processors_used": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped.

    Raises:
        ValueError: A row has not one cell for each header.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"found {len(row)} cells in {row}, expected {len(headers)}")
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def environment_line(found: Mapping[str, object]) -> str:
    """Return the environment in one sentence."""
    listed = found["integer_instructions"]
    instructions = ", ".join(str(flag) for flag in listed) if isinstance(listed, Sequence) else ""
    return (
        f"{found['processor']} ({instructions or 'no integer instructions known'}), {found['processors_used']} processors, "
        f"load {found['load_average']} at the start, {found['system']}, Python {found['python']}, onnx {found['onnx']}, "
        f"onnxruntime {found['onnxruntime']}, numpy {found['numpy']}."
    )


def write_results(
    name: str, values: Mapping[str, object], markdown: str, folder: Path = RESULTS, *, day: datetime.date
) -> tuple[Path, Path]:
    """Write ``<name>-<day>.json`` and ``.md`` and return their paths.

    Args:
        name: The benchmark.
        values: JSON; written with sorted keys, on one line, floats with six digits: no timing has more.
        markdown: The whole text of the page.
        folder: Where to; made if it is not there.
        day: The day of the measurement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, page = (folder / f"{name}-{day.isoformat()}.{kind}" for kind in ("json", "md"))
    text = json.dumps(short({"date": day.isoformat(), **values}), separators=(",", ":"), sort_keys=True)
    data.write_text(text + "\n", encoding="utf-8")
    page.write_text(markdown, encoding="utf-8")
    return data, page


def short(value: object) -> object:
    """Return JSON with six significant digits of each float."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): short(one) for key, one in value.items()}
    return [short(one) for one in value] if isinstance(value, list | tuple) else value


def _processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its instruction flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor", frozenset()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), frozenset(flags.split())
