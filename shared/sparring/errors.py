"""What can go wrong, and what delivery does about it: transient errors are retried, permanent ones terminated."""

from __future__ import annotations


class SparringError(Exception):
    """The root of all errors of this project."""


class Transient(SparringError):
    """Delivered again with growing delay."""


class Permanent(SparringError):
    """Terminated with its reason; a person or a new build decides."""


class LostRace(Transient):
    """Somebody appended to the entity after it had been read; decide again."""

    def __init__(self, pattern: str, expected: int) -> None:
        super().__init__(f"{pattern} moved past sequence {expected}")
        self.pattern, self.expected = pattern, expected


class RepeatedBatch(Transient):
    """The batch id was used before: an earlier append may have happened; reload."""


class LogUnavailable(Transient):
    """The log did not answer in time; whether the append happened is unknown until the entity is read again."""


class DependencyDown(Transient):
    """What the handler needs does not answer; the message waits in its hands, no attempt is burnt."""


class NoSuchEntity(Transient):
    """Nothing is known of what the order names: the order that mints it may be under way, or the name is wrong."""


class HandlerTimeout(Transient):
    """The handler did not end within its service's `handler_s`."""


class ReadModelBehind(Transient):
    """The read model has not reached the fact that caused the reaction."""


class Undecodable(Permanent):
    """The body is not what its subject promises."""


class UnknownMessage(Permanent):
    """No contract matches the subject."""


class NewerVersion(Permanent):
    """The producer knows a newer version of the message; redrive after the upgrade."""


class Expired(Permanent):
    """The order's time is over; redriven later only with force."""


class TooLarge(Permanent):
    """The message is larger than servers take."""


class ArtifactMissing(Permanent):
    """No store holds the content: delivery gives the message up, custody asks the node again."""


class HashMismatch(Permanent):
    """The bytes are not what their name says: quarantined, never deleted."""


class NotTheOwner(Permanent):
    """A decision returned facts of an entity that it had not read, or of another owner."""


class BadInput(SparringError):
    """A person's input is wrong; the message names the field, the value and the remedy. Exit code 2."""


class CannotAnswer(SparringError):
    """Nobody can answer the question: what it needs was never said, or is too old. Exit code 4."""
