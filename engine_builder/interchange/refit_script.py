"""The script that goes with a plan without its weights: it puts them back, for whoever serves the engine or needs a whole plan.

It needs nothing but the runtime's own package. The weights are told by their digests: the plan was built for these, and TensorRT takes
others without a word and then computes what nobody defines.
"""

from __future__ import annotations

from engine_builder.config.builder_options import BuilderConfig
from engine_builder.records.stripped_plan import StrippedPlan

SCRIPT_NAME = "refit.py"
_SCRIPT = '''"""Puts the weights back into {plan}, a plan of {module} {version} without its weights.

Beside this script lie {plan} and {weights}.

    python refit.py                # checks the files, and that the weights go back
    python refit.py whole.plan     # and writes a plan with its weights, for what puts none back itself, such as Triton

A service does without the second file:

    from refit import refitted_engine
    engine = refitted_engine()     # an ICudaEngine, ready for create_execution_context()

Without its weights the plan opens and runs all the same, and answers with zeros.
"""

import hashlib
import sys
from pathlib import Path

import {module} as trt

FOLDER = Path(__file__).resolve().parent
PLAN = {plan!r}
WEIGHTS = {names!r}
SHA256 = {{
{digests}}}  # of the plan, and of the weights that it was built for: with any others it computes what nobody defines


def refitted_engine(folder=FOLDER, logger=None):
    """Return the engine with its weights."""
    folder = Path(folder)
    for name, expected in SHA256.items():
        if _sha256(folder / name) != expected:
            raise RuntimeError(f"{{folder / name}} is not the file that belongs to this script")
    logger = trt.Logger(trt.Logger.WARNING) if logger is None else logger
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
{host_code}    engine = runtime.deserialize_cuda_engine((folder / PLAN).read_bytes())
    if engine is None:
        raise RuntimeError(f"{{module_version()}} cannot open {{PLAN}}: it takes {module} {version} and the GPU type that it was built for")
    refitter = trt.Refitter(engine, logger)
    reader = trt.OnnxParserRefitter(refitter, logger)
    if not reader.refit_from_file(str(folder / WEIGHTS)):
        said = "; ".join(reader.get_error(index).desc() for index in range(reader.num_errors))
        raise RuntimeError(f"the weights of {{WEIGHTS}} do not fit into {{PLAN}}: {{said}}")
    if not refitter.refit_cuda_engine():
        raise RuntimeError(f"the weights could not be put back; missing: {{list(refitter.get_missing_weights())}}")
{streaming}    return engine


def write_whole(engine, path):
    """Write a plan with the engine's weights."""
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    with open(path, "wb") as file:
        file.write(engine.serialize_with_config(config))


def module_version():
    """Return which runtime is installed here."""
    return f"{module} {{trt.__version__}}"


def _sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


if __name__ == "__main__":
    found = refitted_engine()
    print(f"{{PLAN}} has its weights back")
    if len(sys.argv) > 1:
        write_whole(found, sys.argv[1])
        print(f"written: {{sys.argv[1]}}")
'''
_HOST_CODE = "    runtime.engine_host_code_allowed = True  # a version compatible plan carries a runtime of its own\n"


def refit_script(stripped: StrippedPlan, builder: BuilderConfig, *, plan: str, plan_sha256: str, module: str, version: str) -> str:
    """Return the script.

    Args:
        stripped: The plan, and the files that its weights are put back from.
        builder: How the engine was built.
        plan: Name of the plan's file.
        plan_sha256: Of that file.
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: Of it: 11.4.0.106.
    """
    digests = {plan: plan_sha256} | {file.name: file.sha256 for file in stripped.weights}
    names = [file.name for file in stripped.weights]
    return _SCRIPT.format(
        plan=plan,
        module=module,
        version=version,
        weights=" and ".join(filter(None, (", ".join(names[:-1]), names[-1]))),
        names=names[0],
        digests="".join(f"    {name!r}: {digest!r},\n" for name, digest in digests.items()),
        host_code=_HOST_CODE if builder.version_compatible else "",
        streaming=_streaming(builder),
    )


def _streaming(builder: BuilderConfig) -> str:
    """Return the line that bounds the GPU memory of weights, which is not part of the plan; nothing where it is not bounded."""
    if builder.weight_streaming_mb is None:
        return ""
    budget = builder.weight_streaming_mb * 2**20
    return f"    engine.weight_streaming_budget_v2 = min({budget}, engine.streamable_weights_size)  # as it was timed\n"
