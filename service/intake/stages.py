"""What a child process does with an upload: a table of stages, as ``service.worker.child_process`` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from calibration.codec import as_object, json_from_value
from engine_builder.config.config import config_from_json, config_json
from engine_builder.workspace.workspace import FileRef, StageContext
from service.intake.config_text import submitted_value
from service.intake.unpacking import unpack_model

UNPACK, READ_CONFIG, PREFLIGHT = "unpack", "read_config", "preflight"


def unpack(request: Mapping[str, object], context: StageContext) -> Mapping[str, object]:
    """Unpack ``archive`` into ``folder`` of the workspace and return the one model in it as ``file`` and ``sha256``.

    Args:
        request: ``archive`` and ``folder``, relative names; ``max_bytes`` and ``reserve_bytes``, see ``unpack_model``.
        context: The stage's.

    Raises:
        InputError: See ``unpack_model``.
    """
    workspace = context.workspace
    archive, folder = workspace.path(str(request["archive"])), workspace.path(str(request["folder"]))
    sizes = {key: int(str(request[key])) for key in ("max_bytes", "reserve_bytes")}
    model = unpack_model(archive, folder, sizes["max_bytes"], reserve_bytes=sizes["reserve_bytes"])
    found: FileRef = workspace.adopt(model.relative_to(workspace.root).as_posix())
    return {"file": found.file, "sha256": found.sha256}


def read_config(request: Mapping[str, object], context: StageContext) -> Mapping[str, object]:
    """Read the configuration in the file ``text``, or the value of its ``key``, and return it with every default filled in, as ``config``.

    Raises:
        InvalidConfigError: It is none.
    """
    text = context.workspace.path(str(request["text"])).read_text(encoding="utf-8")
    value, key = submitted_value(text), request["key"]
    return {"config": config_json(config_from_json(value if key is None else {str(key): value}))}


def preflight(request: Mapping[str, object], context: StageContext) -> Mapping[str, object]:
    """Return what is known of the model in the file ``model`` before a job on it, for people and pages.

    Args:
        request: ``model``, a relative name, and ``samples`` that engines would be scored on.
        context: The stage's.

    Returns:
        ``Preflight`` as JSON, and ``job_seconds``: about how long a job for onnxruntime-cpu takes here, at least and at most, or None.

    Raises:
        InvalidModelError: It cannot be read, or has no layers.
    """
    from engine_builder.engines.preflight import job_seconds, preflight  # loads onnx and the runtime, which the server does without

    scratch = context.workspace.path("scratch")
    scratch.mkdir()
    found = preflight(context.workspace.path(str(request["model"])), scratch)
    seconds = job_seconds(found, int(str(request["samples"])))
    return {**as_object(json_from_value(found)), "job_seconds": None if seconds is None else list(seconds)}


STAGES: Mapping[str, Callable[[Mapping[str, object], StageContext], Mapping[str, object]]] = {
    UNPACK: unpack,
    READ_CONFIG: read_config,
    PREFLIGHT: preflight,
}
