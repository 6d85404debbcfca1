"""Says the errors of a server as the command line would: by its own commands, not by routes of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from calibration.errors import OptimizerError
from service.errors import UnauthorizedError
from service.settings import PREFIX

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "List the jobs with GET /v1/jobs.": "Check the id: `submit` prints it.",
        "Upload it with POST /v1/files first.": "Submit the job again: its files are sent then.",
        "GET /v1/targets": "`onnx-trt-optimizer targets`",
        "See /docs for what this route takes.": "Check that this command and the server have the same version.",
        "See /docs for the routes.": "Check the address given with --server, and that this command and the server have the same version.",
    }
)


def in_own_words(error: OptimizerError, *, is_key_set: bool) -> tuple[str, str]:
    """Return what is wrong and what to do, for a person at a terminal.

    Args:
        error: Of a command.
        is_key_set: Whether a key for servers is in the environment.
    """
    if isinstance(error, UnauthorizedError) and not error.detail.endswith(("is revoked", "is expired", "is good no more")):
        found = f"the one in {PREFIX}API_KEY is another" if is_key_set else "none is set"
        return f"server: it wants a key, and {found}", f"Set {PREFIX}API_KEY to the key that the server's operator gave you."
    detail, fix = error.detail, error.fix
    for theirs, ours in _WORDS.items():
        detail, fix = detail.replace(theirs, ours), fix.replace(theirs, ours)
    return detail + _of_postgres(error), fix


def _of_postgres(error: OptimizerError) -> str:
    """Return what Postgres or the way to it said, which names host and user but no password; callers over HTTP are not told."""
    cause = error.__cause__
    if cause is None or type(cause).__module__.partition(".")[0] != "psycopg":
        return ""
    return f" ({str(cause).strip().splitlines()[0]})" if str(cause).strip() else ""
