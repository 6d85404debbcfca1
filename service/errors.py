"""Errors of the HTTP service.

ServiceError                        4xx  the caller can fix it
├── BadRequestError            400  the body is not what its headers say
├── UnauthorizedError          401  no key, or one that is not or no longer good
├── ForbiddenError             403  a key without the role; a server without a key, asked from another machine
├── NotFoundError              404  no such path, job, file, artifact or engine
├── MethodNotAllowedError      405  the path exists, the method does not
├── NotFinishedError           409  the engine of a job that has not succeeded
├── UnfinishedError            409  deletion of a job that is not finished
├── GoneError                  410  an engine that was measured and not kept
├── RemovedError               410  a job that was deleted, or removed by the server
├── TooLargeError              413  past the size limit
├── UnsupportedMediaError      415  a content type that nobody reads
├── UnsatisfiableRangeError    416  a part of a file that it does not have
├── QuotaExceededError         429  the tenant's limit is used up
└── InvalidRequestError        422  a form field, header or query parameter
StorageError                   503  the server's disk or database cannot be used now
├── InsufficientStorageError   507  the server's disk has no room for it
├── ObjectStoreError           503  the object store cannot be used now
├── EncryptionKeyError         503  the key of what is encrypted in the database is missing, or another one
├── DatabaseBusyError          503  another process holds the database locked
└── DamagedDatabaseError       500  the database file is damaged
StoppingError                  503  the server is about to stop
DamagedArtifactError           500  the object store lost or damaged a file
IllegalMoveError               500  a job was asked to make a move its state does not allow
DataFolderInUseError           500  another server already works in the data folder
ProcessNameInUseError          500  another process already works under this one's name
"""

from __future__ import annotations

from calibration.errors import InputError, OptimizerError


class ServiceError(InputError):
    """The caller can fix it."""

    slug = "bad-request"
    title = "Bad request"
    status = 400


class BadRequestError(ServiceError):
    """The body is not what its headers say."""

    slug = "malformed-request"
    title = "Malformed request"


class UnauthorizedError(ServiceError):
    """No key, or one that is not or no longer good."""

    slug = "unauthorized"
    title = "Unauthorized"
    status = 401


class ForbiddenError(ServiceError):
    """The key lacks the role, or the server has no key and the caller is not on its machine."""

    slug = "forbidden"
    title = "Forbidden"
    status = 403


class NotFoundError(ServiceError):
    """No such path, job, file, artifact or engine."""

    slug = "not-found"
    title = "Not found"
    status = 404


class MethodNotAllowedError(ServiceError):
    """The path exists, the method does not."""

    slug = "method-not-allowed"
    title = "Method not allowed"
    status = 405


class NotFinishedError(ServiceError):
    """The engine of a job that has not succeeded."""

    slug = "job-not-succeeded"
    title = "The job has no engine"
    status = 409


class GoneError(ServiceError):
    """An engine that was measured and not kept."""

    slug = "engine-not-kept"
    title = "The engine was not kept"
    status = 410


class RemovedError(ServiceError):
    """A job that was deleted, or removed by the server."""

    slug = "job-removed"
    title = "The job was removed"
    status = 410


class UnfinishedError(ServiceError):
    """Deletion of a job that is not finished."""

    slug = "job-not-finished"
    title = "The job is not finished"
    status = 409


class TooLargeError(ServiceError):
    """Past the size limit."""

    slug = "too-large"
    title = "Too large"
    status = 413


class UnsupportedMediaError(ServiceError):
    """A content type that nobody reads."""

    slug = "unsupported-media-type"
    title = "Unsupported media type"
    status = 415


class UnsatisfiableRangeError(ServiceError):
    """A part of a file that it does not have.

    Attributes:
        size_bytes: Of the file.
    """

    slug = "range-not-satisfiable"
    title = "Range not satisfiable"
    status = 416

    def __init__(self, detail: str, *, fix: str, size_bytes: int = 0) -> None:
        """Create the error."""
        super().__init__(detail, fix=fix)
        self.size_bytes = size_bytes

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the size."""
        return (*super().__reduce__(), {"size_bytes": self.size_bytes})


class QuotaExceededError(ServiceError):
    """A limit of the caller's tenant is used up.

    Attributes:
        retry_seconds: After so many it may be otherwise.
    """

    slug = "quota-exceeded"
    title = "Quota exceeded"
    status = 429

    def __init__(self, detail: str, *, fix: str, retry_seconds: int = 60) -> None:
        """Create the error."""
        super().__init__(detail, fix=fix)
        self.retry_seconds = retry_seconds

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the seconds."""
        return (*super().__reduce__(), {"retry_seconds": self.retry_seconds})


class InvalidRequestError(ServiceError):
    """A form field, header or query parameter is wrong."""

    slug = "invalid-request"
    title = "Invalid request"
    status = 422


class StorageError(OptimizerError):
    """The server's disk or database cannot be used now. Nobody's request or job is at fault, and the same works again later."""

    slug = "storage-unavailable"
    title = "Storage unavailable"
    status = 503


class InsufficientStorageError(StorageError):
    """The server's disk has no room for it."""

    slug = "insufficient-storage"
    title = "Insufficient storage"
    status = 507


class ObjectStoreError(StorageError):
    """The object store cannot be used now."""

    slug = "object-store-unavailable"
    title = "Object store unavailable"


class EncryptionKeyError(StorageError):
    """The key of what is encrypted in the database is missing, cannot be read, or is another one."""

    slug = "encryption-key-unusable"
    title = "Encryption key unusable"


class DatabaseBusyError(StorageError):
    """Another process holds the database locked."""

    slug = "database-busy"
    title = "Database busy"


class DamagedDatabaseError(StorageError):
    """The database file is damaged."""

    slug = "database-damaged"
    title = "Database damaged"
    status = 500


class StoppingError(OptimizerError):
    """The server is about to stop, and ends what it does for callers."""

    slug = "server-stopping"
    title = "Server is stopping"
    status = 503


class DamagedArtifactError(OptimizerError):
    """The object store lost a file, or has other bytes than were stored."""

    slug = "artifact-damaged"
    title = "Artifact damaged"


class IllegalMoveError(OptimizerError):
    """A job was asked to make a move its state does not allow."""

    slug = "illegal-move"
    title = "Illegal move of a job"


class DataFolderInUseError(OptimizerError):
    """Another server already works in the data folder."""

    slug = "data-folder-in-use"
    title = "Data folder in use"


class ProcessNameInUseError(OptimizerError):
    """Another process already works under this one's name."""

    slug = "process-name-in-use"
    title = "Name of the process in use"
