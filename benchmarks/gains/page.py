"""The page of ``python -m benchmarks.gains``: which networks gain, which do not, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.gains.plans import Gain
from benchmarks.results_files import environment_line, markdown_table

FP16 = "fp16"


def page(found: Sequence[Gain], left_out: Mapping[str, str], where: Mapping[str, object]) -> str:
    """Return the Markdown page."""
    headers = ["network", "GPU", "batch", "plan", "layers low", "predicted ms", "of FP16", "in products", "in other kernels", "kernels"]
    before = {_key(one): one for one in found if one.case == FP16}
    rows = [_row(one, before[_key(one)]) for one in found if _key(one) in before]
    nothing = [what for what, why in left_out.items() if "predicted to pay" in why]
    failed = [f"- {what}: {why}.\n" for what, why in left_out.items() if what not in nothing]
    return (
        f"# Gains on TensorRT-RTX\n\nPlans built by tensorrt-rtx {where['tensorrt_rtx']}, no GPU at hand: **latencies are predicted, not "
        "measured**. Networks have the layers and sizes of the ones that they are named after, and random weights. *Where it pays* "
        "leaves out the convolutions that are predicted to be slower, before anything is built, as a job does that names no precisions. "
        "Times in products and in other kernels are in ms.\n\n"
        + markdown_table(headers, rows)
        + "\n## Which gain, and why\n\n"
        + "".join(f"- {line}\n" for line in _told(found, before))
        + (f"\nNo plan *where it pays*, since none of its layers does: {'; '.join(nothing)}.\n" if nothing else "")
        + ("\n## Left out\n\n" + "".join(failed) if failed else "")
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.gains`.\n"
    )


def _key(one: Gain) -> tuple[str, str, int]:
    return one.network, one.gpu, one.batch


def _row(one: Gain, before: Gain) -> list[str]:
    return [
        one.network,
        one.gpu,
        str(one.batch),
        one.case,
        f"{one.low_layers} of {one.layers}",
        f"{one.predicted_ms:.4f}",
        f"{one.predicted_ms / before.predicted_ms:.3f}",
        f"{one.products_ms:.4f}",
        f"{one.others_ms:.4f}",
        str(one.kernels),
    ]


def _told(found: Sequence[Gain], before: Mapping[tuple[str, str, int], Gain]) -> Iterable[str]:
    """Yield a sentence for each network and GPU: the ratios of INT8 by batch, and what products save beside what other kernels cost."""
    for network, gpu in dict.fromkeys((one.network, one.gpu) for one in found):
        parts = []
        for one in found:
            if (one.network, one.gpu, one.case) == (network, gpu, "int8") and _key(one) in before:
                base = before[_key(one)]
                saved, more = base.products_ms - one.products_ms, one.others_ms - base.others_ms
                verdict = "gains" if saved > more else "loses"
                parts.append(
                    f"batch {one.batch} {verdict} ({one.predicted_ms / base.predicted_ms:.2f} of FP16): products save "
                    f"{1e3 * saved:.0f} us, other kernels take {1e3 * more:.0f} us more, {one.kernels - base.kernels} more of them"
                )
        if parts:
            yield f"{network} in INT8 on {gpu}: {'; '.join(parts)}."
