"""The report's section on a plan without its weights: what it saves, and how they are put back, or why it ships whole."""

from __future__ import annotations

from html import escape

from engine_builder.reporting.body.job_result import JobResult

_HOW = (
    "<pre>python refit.py whole.plan</pre><p class=note>beside <code>engine.plan</code> and <code>model.explicit.onnx</code> writes the "
    "whole plan; <code>refitted_engine()</code> of the same file gives the engine to a service. Run without its weights the plan answers "
    "with zeros, and nothing says so.</p>"
)


def stripped_section(result: JobResult) -> str:
    """Return the section; nothing where no such plan was asked for."""
    found = result.stripped
    if found is None:
        return ""
    return f"<h2>The plan without its weights</h2><p>{escape(found.in_words)}</p>{_HOW if found.is_stripped else ''}"
