"""The page of predicted latencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.predictions.measuring import Predicted, Row, within_two_errors
from benchmarks.results_files import environment_line, markdown_table

BAR_ERROR, BAR_CORRELATION = 0.05, 0.9
MODELS: Mapping[str, Callable[[Row], float]] = {
    "elements, before": lambda row: row.elements_before,
    "elements, after": lambda row: row.elements_after,
    "kernels, before": lambda row: row.before,
    "kernels, after": lambda row: row.after,
}


def page(found: Sequence[Predicted], where: Mapping[str, object], engines: int) -> str:
    """Return the page of results.

    Args:
        found: Every network.
        where: The environment.
        engines: Of each shape.
    """
    rows = [
        [
            one.network,
            str(one.layers),
            str(len(one.rows)),
            f"{min(row.measured for row in one.rows):.2f} to {max(row.measured for row in one.rows):.2f}",
            *(f"{100 * one.median_error(of):.1f}%, {one.rank_correlation(of):.2f}" for of in MODELS.values()),
            f"{within_two_errors(one):.0%}",
        ]
        for one in found
    ]
    after = MODELS["kernels, after"]
    missed = [one.network for one in found if one.median_error(after) > BAR_ERROR or one.rank_correlation(after) < BAR_CORRELATION]
    has_vnni = any("vnni" in str(flag) for flag in _listed(where["integer_instructions"]))
    return (
        "# Predicted latencies of mixed engines\n\nEngines of scattered layers, runs of neighbours, prefixes of a random order, and "
        f"all but a run, about {engines} of each, one thread, timed in turns with the float engine by CPU time. Each cell: median of "
        "|predicted / measured - 1|, and Spearman's rank correlation. *Elements* counts converted elements alone, as for targets whose "
        "kernels have no names; *kernels* is the model of profiles. *Before*: from the float engine, the one with every layer quantized "
        "and, for kernels, the profile of every second layer. *After*: each engine from all others, its own profile left out as well. "
        "*Within*: predictions after the refit within two of their own errors.\n\n"
        + markdown_table(["network", "layers", "engines", "measured", *MODELS, "within"], rows)
        + f"\nBars after the refit: {BAR_ERROR:.0%} and {BAR_CORRELATION:g}; "
        + (f"missed by {', '.join(missed)}." if missed else "met by every network.")
        + f" Processor {'with' if has_vnni else 'without'} VNNI; on the other kind nothing was measured here.\n\n"
        + f"{environment_line(where)} Repeat with `python -m benchmarks.predictions`.\n"
    )


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, Sequence) else ()
