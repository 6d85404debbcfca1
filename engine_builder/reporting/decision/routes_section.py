"""The report's section on build routes: which were tried on which engine, and what came of each."""

from __future__ import annotations

from html import escape

from engine_builder.records.build_route import TriedRoute
from engine_builder.reporting.body.report_body import ReportBody

_WHAT = (
    "A build route sets knobs of TensorRT's compiler; the precisions stay as they are. Each engine was built, scored with your metric and "
    "timed in turns with the engine that it came from. One that is faster beyond the error of that timing and inside the budget may ship."
)
_NONE = "\N{EN DASH}"


def routes_section(body: ReportBody) -> str:
    """Return the section; nothing where no route was tried."""
    found = body.routes
    if found is None or not found.tried:
        return ""
    helped = sum(one.helped for one in found.tried)
    origin = next((f"trial {trial.index}" for trial in body.trials if trial.fingerprint == found.origin), "the leading engine")
    counted = f"{helped} of {len(found.tried)} routes of {origin} helped; the builder has {found.knobs} knobs. Why no more: {found.ended}."
    shipped = body.result.build_route
    kept = (
        "" if shipped is None else f"<p>The engine that is kept has one. To repeat it: <code>trtexec {escape(shipped.trtexec)}</code></p>"
    )
    rows = "".join(_row(one, body.chosen) for one in found.tried)
    head = "<tr><th>route</th><th>times as fast as without it</th><th>score</th><th>seconds</th><th>what came of it</th></tr>"
    table = f"<details><summary>Routes</summary><div class=scroll><table>{head}{rows}</table></div></details>"
    return f"<h2>Build routes</h2><p class=note>{_WHAT} {escape(counted)}</p>{kept}{table}"


def _row(one: TriedRoute, chosen: str | None) -> str:
    faster = _NONE
    if one.relative is not None:
        faster = f"{1.0 / one.relative.ratio:.3f} ± {one.relative.error / one.relative.ratio**2:.3f}"
    came = ("it is kept" if one.fingerprint == chosen else "it helped") if one.helped else one.why_not or ""
    score = _NONE if one.accuracy is None else f"{one.accuracy:.5g}"
    cells = (escape(one.route), faster, score, f"{one.seconds:.1f}", escape(came))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
