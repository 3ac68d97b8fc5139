"""Publishing: whether there is something new to publish, and the version that comes of it."""

from dataclasses import dataclass, replace

from lambstead.core.arn import LATEST_PUBLISHED
from lambstead.core.functions import CREATING, FunctionVersion, Republished, Settled, State, UpdateStatus, apply


@dataclass(frozen=True, slots=True)
class Publish:
    """A publish as asked for: onto which version, with which description, when, and with which fresh revision id."""

    version: str
    at: str
    revision_id: str
    description: str | None = None


def is_published_already(latest: FunctionVersion, previous: FunctionVersion | None) -> bool:
    """True when publishing `latest` again would publish nothing new over `previous`, the last publish onto the same place.

    What counts is whether `$LATEST` changed, in its description too; the description that a publish brings along does not. A version that failed, or whose re-publish failed, is no such previous: publishing again is how it is tried again.
    """
    if previous is None or previous.state in (State.FAILED, State.DELETING):
        return False
    if previous.update_status is UpdateStatus.FAILED:
        return False
    if previous.source_description not in (None, latest.configuration.description):
        return False
    return previous.configuration.same_as(latest.configuration)


def publish(latest: FunctionVersion, in_place: FunctionVersion | None, order: Publish) -> FunctionVersion:
    """The version that comes of publishing `latest`; `in_place` is the `$LATEST.PUBLISHED` that is there already, if any."""
    configuration = latest.configuration
    if order.description is not None:
        configuration = replace(configuration, description=order.description)
    if in_place is not None:
        republished = apply(in_place, Republished(configuration, order.at, order.revision_id))
        return replace(republished, source_description=latest.configuration.description)
    published = FunctionVersion(
        function=latest.function,
        version=order.version,
        configuration=configuration,
        state=State.PENDING,
        state_reason=CREATING,
        revision_id=order.revision_id,
        last_modified=order.at,
        target=latest.target,
        source_description=latest.configuration.description,
    )
    if not latest.is_managed:
        return published if latest.is_settling else apply(published, Settled(order.revision_id))
    if order.version == LATEST_PUBLISHED:
        return replace(published, update_status=UpdateStatus.IN_PROGRESS, update_reason=CREATING)
    return published
