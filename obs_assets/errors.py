"""The errors that obs_assets raises, grouped by the caller's next step.

::

    ObsError
    ├── ConfigurationError      a setting, a file or a name is wrong: the user has to change it
    │   └── EngineError         this Python or a library returns wrong results: nothing may be redacted with it
    ├── TransientError          may succeed later: retry, or wait for the next run
    │   └── HourBusyError       another run is writing this hour at this destination
    └── PermanentError          the same input fails again: retrying is useless
        ├── StaleHourError      the destination already holds a newer landing generation of this hour
        │   └── OtherLogError   the destination holds this hour from another data folder
        ├── ColdArchiveError    the objects of this hour must be retrieved from a cold storage class before reading
        ├── MissingFrameError   the stage before has not built this hour
        ├── HourExpiredError    the events that this hour is built from have expired
        └── ReceiptError        the counts of an hour do not add up

Raise a leaf, catch a branch. A message never holds event text or a secret.
"""


class ObsError(Exception):
    """Anything that obs_assets raises on purpose."""


class ConfigurationError(ObsError):
    """A setting is wrong. The message names the setting and its allowed values."""


class EngineError(ConfigurationError):
    """The self-test of redaction failed: this installation would lose events or let personal data pass."""


class TransientError(ObsError):
    """The same call can succeed later.

    Attributes:
        retry_after_s: seconds that the server asks to wait; None if it does not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HourBusyError(TransientError):
    """Another run holds the lock of this hour."""


class PermanentError(ObsError):
    """The same input fails again."""


class StaleHourError(PermanentError):
    """The destination holds a newer landing generation of the hour; writing would remove events."""


class OtherLogError(StaleHourError):
    """The hour was loaded from another data folder: older and newer mean nothing between two landing logs."""


class ColdArchiveError(PermanentError):
    """The objects of the hour have the checksums of their manifest, but cannot be read now.

    Attributes:
        rows: number of rows in the manifest.
    """

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


class MissingFrameError(PermanentError):
    """The frame of the stage before does not exist for this hour."""


class HourExpiredError(PermanentError):
    """The events that the hour is built from were removed after ``retention_days``."""


class ReceiptError(PermanentError):
    """Counts that must add up do not."""
