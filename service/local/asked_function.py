"""The process's side of a metric that is one of its own Python functions: takes the questions of stages, calls it, answers.

It is called in the thread that waits for the stage, which is the caller's own: it may use whatever belongs to that
thread, and Ctrl-C ends it.
"""

from __future__ import annotations

import inspect
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np

from calibration.accuracy.own_metrics.asked_metric import LABELS, OUTPUT, REFERENCE, SCORES, WHAT, AskedMetricFile
from calibration.accuracy.own_metrics.asking import BrokenMessageError, Message, receive, send
from calibration.errors import InvalidMetricError, OptimizerError
from calibration.execution.onnxruntime_session import Array
from service.worker.child_process import Listener

logger = logging.getLogger(__name__)

MetricFunction = Callable[..., object]  # (outputs, labels) or (outputs, labels, reference)
_MESSAGE_SECONDS = 60.0  # for a message to come or to go; the function itself may take as long as it likes
_LONGEST_ADDRESS = 100  # bytes of a path that a local socket may have, with some to spare
_SHORT_FOLDER = "/tmp"


class AskedFunction:
    """A metric that is a function of this process; used with ``with``, as long as stages may ask."""

    def __init__(self, function: MetricFunction) -> None:
        """Look at the function; nothing is open yet.

        Args:
            function: Takes the outputs of an engine (a dict of arrays by their names, each (samples, ...)), the labels (an array, or None
                where there are none), and, if it takes a third argument, the float model's outputs. Returns one score a sample, 0 to 1.

        Raises:
            InvalidMetricError: It takes other arguments.
        """
        self._function = function
        self._reads_reference = _reads_reference(function)
        self._folder: TemporaryDirectory[str] | None = None
        self._socket: socket.socket | None = None
        self.error: Exception | None = None  # what the function raised

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="oto-")  # for this user alone
        if len(self._address.encode()) > _LONGEST_ADDRESS:
            self._folder.cleanup()
            self._folder = TemporaryDirectory(prefix="oto-", dir=_SHORT_FOLDER)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self._address)
        self._socket.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def file(self) -> AskedMetricFile:
        """What stages must know of it."""
        return AskedMetricFile(self._address, self._reads_reference)

    @property
    def listener(self) -> Listener:
        """What waits for questions while a stage runs."""
        assert self._socket is not None  # it is used inside ``with``
        return Listener(self._socket, self._take)

    @property
    def _address(self) -> str:
        assert self._folder is not None  # it is used inside ``with``
        return str(Path(self._folder.name, "s"))

    def _take(self) -> None:
        """Answer the next question."""
        assert self._socket is not None  # whoever calls has it from ``listener``
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(_MESSAGE_SECONDS)
            try:
                send(connection, self._answer(receive(connection).arrays))
            except BrokenMessageError as exc:  # the stage has ended, or tells itself what is wrong
                logger.info("a question for the metric: %s", exc)

    def _answer(self, arrays: Mapping[str, Array]) -> Message:
        outputs, reference = ({name.removeprefix(of): array for name, array in arrays.items() if name.startswith(of)} for of in _SIDES)
        arguments = (outputs, arrays.get(LABELS), reference) if self._reads_reference else (outputs, arrays.get(LABELS))
        try:
            found = self._function(*arguments)
        except OptimizerError as error:
            return Message({}, dict(error.problem()))
        except Exception as error:  # whatever the user's function raises
            self.error = error
            problem = InvalidMetricError(
                f"{WHAT}: the function raised {type(error).__name__}: {error}",
                fix="Call it with the float model's outputs for a few validation samples.",
            ).problem()
            return Message({}, dict(problem))
        try:
            return Message({SCORES: _scores(found, len(next(iter(outputs.values()))))})
        except InvalidMetricError as error:
            return Message({}, dict(error.problem()))


def _scores(found: object, samples: int) -> Array:
    """Return what a function gave as an array, (samples,)."""
    fix = "Return an array with one score for each sample, 0 to 1, where 1 is perfect."
    try:
        scores = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InvalidMetricError(f"{WHAT}: the function returned {type(found).__name__}, {samples} numbers expected", fix=fix) from exc
    if scores.shape not in ((samples,), (samples, 1)):
        raise InvalidMetricError(
            f"{WHAT}: the function returned the shape {scores.shape} for {samples} samples, ({samples},) expected", fix=fix
        )
    return scores.reshape(samples)


def _reads_reference(function: MetricFunction) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return False
    for arguments in (_ARGUMENTS, _ARGUMENTS[:2]):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments == _ARGUMENTS
    raise InvalidMetricError(
        f"{WHAT}: a function with the arguments {signature} found, (outputs, labels) or (outputs, labels, reference) expected",
        fix="Let it take the outputs, a dict of arrays by name, and the labels.",
    )


_SIDES = (OUTPUT, REFERENCE)
_ARGUMENTS = ("outputs", "labels", "reference")
