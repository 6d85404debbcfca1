"""The line below a report's heading: which model, when, by which version, for what, and on which processor or GPU."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from engine_builder.reporting.body.report_body import ReportBody


def about_in_words(body: ReportBody) -> str:
    """Return what the report is about; of an older report without these facts, what there is."""
    made, parts = body.made, []
    if made is not None:
        version = "" if made.version is None else f" {made.version}"
        parts = [made.model, date_in_words(made.at), f"onnx-trt-optimizer{version}"]
    target = body.config.get("target")
    return " · ".join([*parts, *([target] if isinstance(target, str) else []), machine_in_words(body.result.environment)])


def date_in_words(at: str) -> str:
    """Return a date and time as people read it: "29 November 2026, 19:12 UTC".

    Args:
        at: ISO 8601, UTC.
    """
    when = datetime.fromisoformat(at)
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"


def machine_in_words(environment: Mapping[str, object]) -> str:
    """Return the GPU with its driver, else the processor with its instruction sets, and the threads.

    Args:
        environment: Of a job's result.
    """
    threads = environment.get("threads")
    if environment.get("gpu"):
        facts = [f"{name} {environment[key]}" for key, name in _OF_A_GPU.items() if environment.get(key)]
        return f"{environment['gpu']}" + (f" ({', '.join(facts)})" if facts else "")
    told = environment.get("instruction_sets")
    sets = f" ({', '.join(map(str, told))})" if isinstance(told, list | tuple) and told else ""
    many = f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    return f"{environment.get('processor') or 'unknown processor'}{sets}{many}"


_OF_A_GPU = {
    "compute_capability": "compute capability",
    "driver": "driver",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
}
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
