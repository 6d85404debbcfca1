"""Turns a checked request into a queued job with its own workspace."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibration.data.readers import suffix_of
from calibration.errors import InvalidConfigError
from engine_builder.backends.registry import opens_gpu
from engine_builder.backends.target_checks import check_config, with_metric_model
from engine_builder.config.config import Config, config_from_json, config_json
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import FileRef
from service.errors import InvalidRequestError, NotFoundError, QuotaExceededError
from service.intake.config_text import submitted_value
from service.intake.in_child import CONFIG_BYTES_READ_AT_ONCE
from service.intake.unpacking import HEAD_BYTES, begins_like_archive
from service.jobs.branches.planning import branch_of
from service.jobs.execution.given_model import laid_model
from service.jobs.execution.placement import branch_configs, check_place, placed_on
from service.jobs.faults.job_note import write_note
from service.jobs.quotas.tenant_uploads import TenantUploads
from service.jobs.records import Job, NewJob, StoredFile, Webhook
from service.jobs.resources import Deps
from service.jobs.upkeep.webhook_request import webhook_from_text
from service.jobs.uploads import Form
from service.worker.kernel_times import without_shared_times

ROLES = ("model", "calibration", "validation", "metric")
REQUIRED = ("model", "calibration")
TEXT_FIELDS = ("config", "assignment", "webhook", "priority", *(f"{role}_id" for role in ROLES))


def check_before_reading(idempotency_key: str | None, tenant: str, deps: Deps) -> None:
    """Refuse what would surely be refused when it is read; a request that is repeated is not.

    Raises:
        QuotaExceededError: The tenant may submit no job now.
    """
    if idempotency_key is None or not deps.store.knows_key(tenant, idempotency_key):
        deps.store.admission.check(tenant)


def submit(form: Form, idempotency_key: str | None, uploads: TenantUploads, deps: Deps) -> tuple[Job, bool]:
    """Check the request and write the job; whatever needs the model parsed is left to its first stage.

    Args:
        form: Files by role, and texts: ``config``, ``assignment`` and ``<role>_id``.
        idempotency_key: The caller's key, if one was sent.
        uploads: The files of the caller's tenant, among them those of the form.
        deps: The server's belongings.

    Returns:
        The job, and whether it is new: a new one has yet to be enqueued.

    Raises:
        InputError: The request cannot become a job; nothing is left behind.
        QuotaExceededError: The tenant may not submit it; not even the files of the form are left.
    """
    try:
        return _submitted(form, idempotency_key, uploads, deps)
    except QuotaExceededError:
        uploads.take_back(deps.filing)
        raise


def _submitted(form: Form, idempotency_key: str | None, uploads: TenantUploads, deps: Deps) -> tuple[Job, bool]:
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidRequestError("Idempotency-Key: expected 1 to 255 printable characters", fix="Send a UUID.")
    webhook = webhook_from_text(form.texts.get("webhook"), any_address=deps.settings.webhook_addresses == "any")
    priority = _priority(form.texts.get("priority"))
    config = _checked_config(form.texts, deps)
    for one in branch_configs(config) or (config,):
        if deps.membership is not None:
            check_place(one, deps.membership.members)
    files = _files(form, uploads, deps)
    config = with_metric_model(config, is_given="metric" in files)
    if not deps.store.tenants.get(uploads.tenant).shares_measurements:
        config = without_shared_times(config)
    config_object = config_json(config)
    request: dict[str, object] = {"config": config_object, "files": {role: stored.sha256 for role, stored in files.items()}}
    if webhook is not None and idempotency_key is not None:
        request["webhook"] = _slow_digest(webhook, uploads.tenant, idempotency_key)
    if priority:
        request["priority"] = priority
    request_sha256 = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    earlier = deps.store.find_by_key(uploads.tenant, idempotency_key, request_sha256)
    if earlier is not None:
        return earlier, False
    configs = branch_configs(config)
    new = NewJob(
        id=str(uuid.uuid4()),
        target=config.target,
        config=config_object,
        inputs={},
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        priority=priority,
        tenant=uploads.tenant,
        branches=len(configs),
    )
    ids = [str(uuid.uuid4()) for _ in configs]
    all_ids = (new.id, *ids)
    is_for_gpu = any(_is_for_gpu(one, deps) for one in configs or (config,))
    try:
        if configs:
            deps.workspace(new.id).mkdir(parents=True)
        else:
            new = dataclasses.replace(new, inputs=_lay_out(files, deps.workspace(new.id), deps))
        branches = [
            branch_of(new, one, _lay_out(files, deps.workspace(job_id), deps), job_id) for one, job_id in zip(configs, ids, strict=True)
        ]
        for each in all_ids:
            deps.folders.laid_out(each)
        job, is_new = deps.store.create(
            new,
            webhook,
            admit=lambda connection: deps.store.admission.admit(
                connection, uploads.tenant, opens_gpu=is_for_gpu, jobs=max(len(configs), 1)
            ),
            branches=branches,
        )
    except BaseException as error:
        _remove(all_ids, deps)
        # The same request, sent twice at the same moment, may have taken the last place.
        if isinstance(error, QuotaExceededError) and (earlier := deps.store.find_by_key(uploads.tenant, idempotency_key, request_sha256)):
            return earlier, False
        raise
    if is_new:
        for written in (job, *(deps.store.branches(job.id) if configs else ())):
            write_note(deps.workspace(written.id), written)
            deps.folders.leave(written.id)
    else:  # the same key arrived twice at the same moment
        _remove(all_ids, deps)
    return job, is_new


def _slow_digest(webhook: Webhook, tenant: str, idempotency_key: str) -> str:
    """Return what tells one webhook from another, and takes whoever tries secrets against it tens of milliseconds for each."""
    about = json.dumps([dataclasses.asdict(webhook)]).encode()
    return hashlib.scrypt(about, salt=f"{tenant}\0{idempotency_key}".encode(), n=2**14, r=8, p=1).hex()


def _remove(job_ids: Sequence[str], deps: Deps) -> None:
    for job_id in job_ids:
        deps.folders.remove(job_id)


def takes_a_child(form: Form, uploads: TenantUploads, deps: Deps) -> bool:
    """Whether something in the request is read by a child process, which takes its time; few such requests are served at once."""
    if any(_is_long(form.texts.get(name, "")) for name in _JSON_FIELDS):
        return True
    given = form.files.get("model")
    sha256 = given.sha256 if given is not None else form.texts.get("model_id", "").removeprefix("sha256:")
    if uploads.find(sha256) is None:
        return False
    with deps.artifacts.open(sha256) as file:
        return begins_like_archive(file.read(HEAD_BYTES))


def _is_for_gpu(config: Config, deps: Deps) -> bool:
    """Whether the job's minutes are those of a GPU: of this machine, or of a worker."""
    is_elsewhere = deps.membership is not None and placed_on(config, deps.membership.members) is not None
    return is_elsewhere or opens_gpu(config.target, config.gpu)


def _priority(text: str | None) -> int:
    if text is None:
        return 0
    if not _NUMBER.fullmatch(text) or abs(int(text)) > MAX_PRIORITY:
        raise InvalidRequestError(
            f"priority {text[:20]!r}: expected a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}",
            fix="Leave it out, or give one of these.",
        )
    return int(text)


def _checked_config(texts: Mapping[str, str], deps: Deps) -> Config:
    text, given = (texts.get(name, "") for name in _JSON_FIELDS)
    value = _config_read_in_child(text, deps) if _is_long(text) else submitted_value(text)
    if given.strip() and isinstance(value, Mapping):  # anything else is refused below
        if value.get("assignment"):
            raise InvalidConfigError("form: found assignment twice, as a part and in config", fix="Send one of them.")
        read = _config_read_in_child(given, deps, key="assignment")["assignment"] if _is_long(given) else submitted_value(given)
        value = {**value, "assignment": read}
    config = config_from_json(value)
    check_config(config)
    return config


def _is_long(config: str) -> bool:
    return len(config) > CONFIG_BYTES_READ_AT_ONCE


def _config_read_in_child(text: str, deps: Deps, *, key: str | None = None) -> dict[str, object]:
    workspace = deps.workspace(f"config-{uuid.uuid4()}")  # no job: removed at the next start, should this process end now
    workspace.mkdir(parents=True)
    try:
        return deps.intake.read_config(text, workspace, key=key)
    finally:
        remove_tree(workspace)


def _files(form: Form, uploads: TenantUploads, deps: Deps) -> Mapping[str, StoredFile]:
    found: dict[str, StoredFile] = {}
    for role in ROLES:
        uploaded, file_id = form.files.get(role), form.texts.get(f"{role}_id")
        if uploaded is not None and file_id is not None:
            raise InvalidRequestError(f"form: found both {role} and {role}_id, expected one", fix="Send one of them.")
        if file_id is not None:
            uploaded = uploads.find(file_id.removeprefix("sha256:"))
            if uploaded is None:
                raise NotFoundError(f"{role}_id {file_id!r}: there is no such file", fix="Upload it with POST /v1/files first.")
            deps.artifacts.mark_upload(uploaded.sha256)
        if uploaded is not None:
            found[role] = uploaded
        elif role in REQUIRED:
            raise InvalidRequestError(f"form: expected a file {role!r} or a text {role}_id, found neither", fix=f"Add the {role} file.")
    return found


def _lay_out(files: Mapping[str, StoredFile], workspace: Path, deps: Deps) -> dict[str, FileRef]:
    folder = workspace / "inputs"
    folder.mkdir(parents=True)
    laid: dict[str, FileRef] = {}
    for role, stored in files.items():
        if role == "model":
            laid[role] = laid_model(stored, folder, workspace, deps)
            continue
        path = folder / role
        deps.artifacts.fetch(stored.sha256, path)
        named = path.with_suffix(".onnx" if role == "metric" else suffix_of(path))
        path.rename(named)
        laid[role] = FileRef(str(named.relative_to(workspace)), stored.sha256)
    return laid


_JSON_FIELDS = ("config", "assignment")
MAX_PRIORITY = 100
_NUMBER = re.compile(r"-?[0-9]{1,3}")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
