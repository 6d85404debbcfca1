"""The page of a soak: what was lost, and whether anything grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.results_files import markdown_table
from tests.soak.footprint import Footprint, growth
from tests.soak.soaking import KEPT, Plan, Soaked

TOMBSTONES = "removed_jobs"  # a row for each job that was deleted, so that who asks is told
_KIB = 1 << 10


def page(place: str, plan: Plan, found: Soaked, where: str) -> str:
    """Return the page.

    Args:
        place: Where the jobs ran, in words.
        plan: What was to be done.
        found: What came of it.
        where: The environment in one sentence.
    """
    counts = [
        ["jobs sent, of those planned", f"{found.submitted} of {plan.jobs}"],
        ["ended", str(found.ended)],
        ["lost", str(len(found.lost))],
        ["wrong: state, a trial that failed, or an engine that does not do what the report says", str(len(found.wrong))],
        ["submissions sent again, since a kill swallowed the answer", str(found.sent_twice)],
        ["kills", str(sum(found.kills.values()))],
        *([f"- {name}", str(count)] for name, count in sorted(found.kills.items())),
        ["seconds", f"{found.seconds:.0f}"],
    ]
    left = {name: count for name, count in found.left.items() if count}
    return (
        f"# Small jobs with random kills: {place}\n\n"
        f"Seed {plan.seed}; a kill every {plan.seconds_between_kills:g} s on average, in the last {plan.calm_share:.0%} of the jobs of "
        "stages alone. Each job is real; its engine was downloaded and its agreement with the network measured anew. "
        f"The {KEPT} jobs that ended last are kept, all before them were deleted over HTTP.\n\n{where}\n\n"
        + markdown_table(["what", "found"], counts)
        + "".join(f"\n- {line}\n" for line in found.wrong)
        + "\n## What grows\n\nMemory, descriptors and threads in the calm part, in which no server was started anew "
        f"({_calm_looks(found)} looks), the rest over all looks but the first fifth. The last column is the slope of a straight line, "
        "with twice its standard error. A descriptor or a page more or less is open while a job runs, as it is at most looks.\n\n"
        + markdown_table(["what", "first quarter", "last quarter", "with each job"], _grown(found))
        + "\nRows when all jobs were deleted: "
        + (", ".join(f"{count} of `{name}`" for name, count in sorted(left.items())) or "none")
        + f". `{TOMBSTONES}` keeps one of each deleted job, for who asks for it; an upload is kept until it is deleted itself.\n"
    )


def _calm_looks(found: Soaked) -> int:
    return sum(look.finished > found.calm_from for look in found.looks)


def _grown(found: Soaked) -> list[list[str]]:
    calm = [look for look in found.looks if found.calm_from and look.finished > found.calm_from]
    later = found.looks[len(found.looks) // 5 :]
    names = sorted({name for look in calm for name in look.memory_bytes})
    rows = [
        row
        for name in names
        for row in (
            _row(f"memory of {name}, KiB", calm, lambda look, name=name: look.memory_bytes[name] / _KIB),  # type: ignore[misc]
            _row(f"descriptors of {name}", calm, lambda look, name=name: look.descriptors[name]),  # type: ignore[misc]
            _row(f"threads of {name}", calm, lambda look, name=name: look.threads[name]),  # type: ignore[misc]
        )
    ]
    rows.append(_row("files, KiB", later, lambda look: look.disk_bytes / _KIB))
    rows.append(_row(f"rows of all tables but `{TOMBSTONES}`", later, lambda look: sum(look.rows.values()) - look.rows.get(TOMBSTONES, 0)))
    return rows


def _row(name: str, looks: Sequence[Footprint], value: Callable[[Footprint], float]) -> list[str]:
    values = [float(value(look)) for look in looks]
    if not values:
        return [name, "", "", ""]
    quarter = max(len(values) // 4, 1)
    slope, error = growth([look.finished for look in looks], values)
    return [name, f"{np.median(values[:quarter]):,.0f}", f"{np.median(values[-quarter:]):,.0f}", f"{slope:+,.2f} ± {error:,.2f}"]
