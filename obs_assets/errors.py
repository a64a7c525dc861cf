"""What can go wrong, and what the caller may do about it.

::

    ObsError
    ├── ConfigurationError      a setting, a file or a name is wrong: said once, at start, with what to change
    │   └── EngineError         this Python or a library returns wrong results: nothing may be redacted with it
    ├── TransientError          may succeed later: retry, or wait for the next run
    │   └── HourBusyError       another run is writing this hour at this destination
    └── PermanentError          the same input fails again: retrying is useless
        ├── StaleHourError      the destination already holds a newer landing generation of this hour
        ├── ColdArchiveError    the hour is held, but must be fetched from its storage class before it can be read
        ├── MissingFrameError   the stage before has not built this hour
        ├── HourExpiredError    what this hour is built from is kept no longer
        └── ReceiptError        the counts of an hour do not add up

Leaves say what failed, branches say what may be caught. No message ever holds event text or a secret.
"""


class ObsError(Exception):
    """Anything that obs_assets raises on purpose."""


class ConfigurationError(ObsError):
    """A setting is wrong. The message names it and says what it may be."""


class EngineError(ConfigurationError):
    """The self-test of redaction failed: this installation would lose events or let personal data pass."""


class TransientError(ObsError):
    """The same call may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HourBusyError(TransientError):
    """Another run holds the lock of this hour."""


class PermanentError(ObsError):
    """The same input fails again."""


class StaleHourError(PermanentError):
    """A newer landing generation of the hour is already in place; writing would take events away."""


class ColdArchiveError(PermanentError):
    """The hour is held as its manifest says, by checksums, but cannot be read now.

    Attributes:
        rows: that the manifest counts.
    """

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


class MissingFrameError(PermanentError):
    """The frame of the stage before does not exist for this hour."""


class HourExpiredError(PermanentError):
    """What the hour would be built from was removed, since ``retention_days`` have passed."""


class ReceiptError(PermanentError):
    """Counts that must add up do not."""
