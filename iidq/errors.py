"""Every error that iidq raises on purpose, and the consequence for the job.

    IidqError
    ├── SettingsFault             a variable has a bad value; the start stops with one line
    ├── IdempotencyConflict       a key belongs to another request; HTTP 422
    ├── InvalidInput              a caller's fields are wrong; HTTP 400, one entry per fault
    ├── RowRefused                database.row_refused  a constraint or trigger refuses one row; HTTP 409 or 422
    ├── DatabaseRefusal           database.*      Postgres is there and refuses: a right, the login, a setting; HTTP 503
    │   ├── TriggerFault          database.*      code that an operator added to the database fails; HTTP 503
    │   └── ObjectMissing         database.*      an object of iidq's is gone from a migrated database; HTTP 503
    ├── PermanentFault            trying again cannot help; the job fails at once
    │   ├── ManifestFault         manifest.*      missing, malformed, too large
    │   ├── SignatureFault        signature.*     malformed, or not recoverable
    │   ├── RegistryFault         registry.*      no code there, or not a ContentRegistry
    │   └── FetchRefused          fetch.refused.* a rule forbids the URL
    └── TemporaryFault            trying again may help; the job is retried with backoff
        ├── GatewayFault          fetch.*         time-out, 429, 5xx, connection lost
        ├── RpcFault              rpc.*           endpoint down, limited or talking nonsense
        ├── AttemptTimedOut       attempt.timeout the whole attempt took too long
        ├── DatabaseUnavailable   database.*      Postgres unreachable, or not migrated
        │   └── DatabaseBusy      database.busy   all connections of this process are in use; HTTP 503
        ├── RedisUnavailable      redis.*         Redis is away; the service goes on without it
        └── TooManyWatchers       watching.limit  no room for another client that waits; HTTP 503

``code`` is stable and for machines; the message is one sentence for people and carries nothing internal:
no credentials, no stack, no SQL. ``str(error)`` is ``"code: message"``, as stored in the job's ``error``.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple


class IidqError(Exception):
    """Base of all errors that iidq raises on purpose."""

    code: str = "internal"
    temporary: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class SettingsFault(IidqError):
    """An environment variable has an unusable value."""

    code = "settings.invalid"


class FieldFault(NamedTuple):
    """One fault of one field of a request."""

    field: str
    """Name of the field, as clients send it."""
    message: str
    """The fault and the expected value, as one sentence."""


class InvalidInput(IidqError):
    """The caller's fields are wrong; ``faults`` has all of them."""

    code = "input.invalid"

    def __init__(self, faults: Sequence[FieldFault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


class IdempotencyConflict(IidqError):
    """The caller's Idempotency-Key belongs to a request with other fields."""

    code = "idempotency.conflict"


class DatabaseRefusal(IidqError):
    """Postgres refuses, and only an operator can help; not an outage.

    The message names the object and the right where known. The message is for operators, never for clients.
    """

    code = "database.refused"


class TriggerFault(DatabaseRefusal):
    """Code that an operator added to the database fails: a trigger names a missing table or lacks a right.

    The fault may concern one row alone. The job waits until an operator has fixed the code.
    """


class ObjectMissing(DatabaseRefusal):
    """An object of iidq's is missing although all migrations are applied; `iidq migrate` does not restore it."""


class RowRefused(IidqError):
    """A constraint, trigger or policy of the database refuses one row; trying again cannot help.

    The message names the rule and no value of the row. ``conflict``: another row is in the way. ``item``: the row's
    index in a batch, None where unknown.
    """

    code = "database.row_refused"

    def __init__(self, message: str, *, conflict: bool = False, item: int | None = None) -> None:
        super().__init__(message)
        self.conflict = conflict
        self.item = item


class PermanentFault(IidqError):
    """Trying again cannot help."""

    temporary = False


class ManifestFault(PermanentFault):
    """The manifest is missing, malformed or too large."""

    code = "manifest.malformed"


class SignatureFault(PermanentFault):
    """The manifest's signature is malformed or no signer can be recovered from it."""

    code = "signature.malformed"


class RegistryFault(PermanentFault):
    """The registry address holds no code, or something that is not a ContentRegistry."""

    code = "registry.unrecognised"


class FetchRefused(PermanentFault):
    """A rule forbids fetching this URL; the message names the rule."""

    code = "fetch.refused"


class TemporaryFault(IidqError):
    """Trying again may help, after ``retry_after_seconds`` if the far side asked for that."""

    temporary = True

    def __init__(self, message: str, *, code: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class GatewayFault(TemporaryFault):
    """A web server or IPFS gateway failed to deliver."""

    code = "fetch.unavailable"


class RpcFault(TemporaryFault):
    """An Ethereum JSON-RPC endpoint gave no usable answer."""

    code = "rpc.unavailable"


class AttemptTimedOut(TemporaryFault):
    """The attempt's deadline passed."""

    code = "attempt.timeout"


NOT_MIGRATED: Final = "database.not_migrated"
"""Code of a :class:`DatabaseUnavailable` that does not pass by itself: the schema lacks an object."""


class DatabaseUnavailable(TemporaryFault):
    """Postgres cannot be reached, is shutting down, or has not been migrated."""

    code = "database.unavailable"


class DatabaseBusy(DatabaseUnavailable):
    """Postgres answers, and this process has no connection left for the caller."""

    code = "database.busy"


class RedisUnavailable(TemporaryFault):
    """Redis is away, slow, full or refuses; no request or job fails because of that."""

    code = "redis.unavailable"


class TooManyWatchers(TemporaryFault):
    """The process serves the most clients that may wait for changes of jobs."""

    code = "watching.limit"
