"""A server of jobs, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self, Unpack

from engine_builder.config.config import config_json
from service.client.client import Client as HttpClient
from service.client.views import JobRow
from service.intake.common_keys import CommonKeys, check_arguments, config_with, is_any_given
from service.intake.given_files import check_files
from service.python.given import GivenModel, GivenSamples, metric_file, model_file, samples_file
from service.python.job import Job


class Client:
    """Talks to one server; used with ``with``. Not to be shared between threads.

    Every method raises an ``OptimizerError``: the server's own, with its fix, or ``ServerUnavailableError`` where none answers.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: The server's address.
            key: The bearer key, where the server has one.

        Raises:
            ServiceError: The address is none.
        """
        self._http = HttpClient(url, key)

    def submit(
        self,
        model: GivenModel,
        calibration: GivenSamples,
        validation: GivenSamples | None = None,
        *,
        config: Mapping[str, object] | None = None,
        metric: str | None = None,
        metric_model: GivenModel | None = None,
        batched: bool | None = None,
        idempotency_key: str | None = None,
        **keys: Unpack[CommonKeys],
    ) -> Job:
        """Send the files that the server does not have, submit a job and return it.

        Args:
            model: A path, the bytes of an .onnx file, or an ``onnx.ModelProto``.
            calibration: Samples: a path, a dict of arrays whose first axis counts samples, or an iterable of samples or batches (arrays,
                tuples of input and label, dicts), which is read once and never held in memory.
            validation: Samples for accuracy, the same; without it a part of the calibration set is held out.
            config: The configuration; every key is optional.
            metric: What the budget is stated in, such as "top1".
            metric_model: A metric of your own as an ONNX model.
            batched: Whether an iterable gives batches; None: told by the shapes of the model's inputs.
            idempotency_key: Submitting again with the same text returns the same job.
            **keys: Keys of the configuration, in the place of those in ``config``.

        Raises:
            InputError: Something that is given cannot be used.
            OptimizerError: The server's own error, or ``ServerUnavailableError``.
        """
        check_arguments(keys, ("metric", "metric_model", "config", "validation", "batched", "idempotency_key"))
        given = {**keys, "metric": metric}
        sent = config_json(config_with(config or {}, given)) if config or is_any_given(given) else {}
        with TemporaryDirectory(prefix=_PREFIX) as temporary:
            folder = Path(temporary)
            model_path = model_file(model, folder)
            metric_path = None if metric_model is None else metric_file(metric_model, folder)
            files = [
                None if samples is None else samples_file(samples, model_path, folder, part, batched=batched)
                for part, samples in (("calibration", calibration), ("validation", validation))
            ]
            assert files[0] is not None
            check_files(model_path, files[0], files[1], metric_path)
            view = self._http.submit(
                self._http.upload_model(model_path),
                self._http.upload_samples(files[0], "calibration set"),
                None if files[1] is None else self._http.upload_samples(files[1], "validation set"),
                sent,
                idempotency_key=idempotency_key,
                metric_id=None if metric_path is None else self._http.upload(metric_path),
            )
        return Job(self._http, JobRow(view.id, view.state, view.stage, view.progress))

    def job(self, job_id: str) -> Job:
        """Return the job of an id, which the server must know."""
        view = self._http.get(job_id)
        return Job(self._http, JobRow(view.id, view.state, view.stage, view.progress))

    def jobs(self, *, state: str | None = None, limit: int | None = None) -> tuple[Job, ...]:
        """Return the server's jobs, newest first; ``job.last`` of each has its state.

        Args:
            state: Only those that are "queued", "running", "succeeded", "failed" or "cancelled".
            limit: As many at most; None: all.
        """
        return tuple(Job(self._http, row) for row in self._http.jobs(state=state, limit=limit))

    def targets(self) -> tuple[Mapping[str, object], ...]:
        """Return what the server can build for."""
        return self._http.targets()

    def close(self) -> None:
        """Close the connection. May be called again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_PREFIX = "onnx-trt-optimizer-"
