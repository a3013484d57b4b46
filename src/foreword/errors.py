"""Every error Foreword raises on purpose, split by who has to act.

    ForewordError
    ├── UsageError           the request is wrong: change the command, the recipe or the data
    │   ├── ConfigError        a setting is unknown or has a value that cannot be used
    │   ├── DataError          a dataset is missing, empty or has bad rows
    │   ├── BadRequest         a body sent to the server cannot be used; `param` names the field
    │   └── PromptTooLong      prompt + prefix + new tokens do not fit the model's context
    ├── ArtifactError        the bytes at rest are wrong: get another copy, trust nothing in it
    ├── CompatibilityError   both sides are sound but do not belong together
    │   └── UnsupportedModel   this base model cannot carry a prefix, and why
    ├── TrainingError        a run was stopped because its result would be useless
    ├── StorageError         the disk or the network refused; nothing was half written
    ├── TrustError           nobody we trust vouches for these bytes: sign them, or change the policy
    ├── RegistryError        the registry refuses, and its state says why
    │   ├── Conflict           somebody changed the same thing first: look again, then decide again
    │   └── NotFound           there is no such name, version, alias or digest
    └── ServingError         a request was not answered; nothing else was answered in its place
        ├── AuthError          nobody we know asks, or somebody who may not: another key
        ├── QuotaExceeded      its tenant or key has used up what it may: wait `retry_after` seconds
        ├── Overloaded         no room now: try again after `retry_after` seconds
        ├── PrefixUnavailable  its prefix cannot be had now, and why; `retry_after` says when to ask
        ├── DeadlineExceeded   it was not finished in the time it had
        ├── Cancelled          somebody gave it up
        └── EngineFailed       a step or the engine broke; the message says what

An error is one readable sentence that says what was expected, what came and what to do. `code` is a
stable machine-readable name (`artifact.truncated`); `exit_code` is what the command line returns.
"""

from __future__ import annotations


class ForewordError(Exception):
    """Root of everything raised on purpose; `str(error)` is meant for the user as it is."""

    exit_code = 1
    default_code = "foreword"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code


class UsageError(ForewordError):
    exit_code = 2
    default_code = "usage"


class ConfigError(UsageError):
    default_code = "config"


class DataError(UsageError):
    default_code = "data"


class BadRequest(UsageError):
    """`param`: the field, such as `messages[0].role`; None if it is the body as a whole."""

    default_code = "request"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class PromptTooLong(UsageError):
    default_code = "prompt.too_long"


class ArtifactError(ForewordError):
    exit_code = 3
    default_code = "artifact"


class CompatibilityError(ForewordError):
    exit_code = 4
    default_code = "compatibility"


class UnsupportedModel(CompatibilityError):
    default_code = "model.unsupported"


class TrainingError(ForewordError):
    exit_code = 5
    default_code = "training"


class StorageError(ForewordError):
    exit_code = 6
    default_code = "storage"


class TrustError(ForewordError):
    exit_code = 7
    default_code = "trust"


class RegistryError(ForewordError):
    exit_code = 8
    default_code = "registry"


class Conflict(RegistryError):
    default_code = "registry.conflict"


class NotFound(RegistryError):
    default_code = "registry.not_found"


class ServingError(ForewordError):
    """`retry_after`: seconds after which asking again may help; None if it would not."""

    exit_code = 9
    default_code = "serving"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class AuthError(ServingError):
    default_code = "auth"


class QuotaExceeded(ServingError):
    default_code = "quota"


class Overloaded(ServingError):
    default_code = "serving.overloaded"


class PrefixUnavailable(ServingError):
    default_code = "serving.prefix_unavailable"


class DeadlineExceeded(ServingError):
    default_code = "serving.deadline"


class Cancelled(ServingError):
    default_code = "serving.cancelled"


class EngineFailed(ServingError):
    default_code = "serving.engine_failed"
