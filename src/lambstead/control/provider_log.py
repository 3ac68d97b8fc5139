"""Writes the system log of capacity providers: one file per provider, one JSON object per line.

Kept beside the logs of functions, in a folder that no function can be named after. A line that cannot be written is dropped, as AWS drops what the
operator role may not write: no instance waits for its log.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lambstead.core.arn import Realm
from lambstead.core.capacity import CapacityProvider
from lambstead.core.fleet import Instance
from lambstead.core.provider_log import InstanceEvent, record

log = logging.getLogger(__name__)

FOLDER = "capacity.providers"


class ProviderLog:
    """See the module."""

    def __init__(self, logs: Path, realm: Realm, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder = logs / FOLDER
        self._realm = realm
        self._now = now
        self._providers: dict[str, CapacityProvider] = {}

    def know(self, providers: Iterable[CapacityProvider]) -> None:
        """The providers as they are configured now."""
        # One that was just deleted is kept: its last instances still end.
        self._providers |= {provider.name: provider for provider in providers}

    def write(self, event: InstanceEvent, instance: Instance, because: str = "") -> None:
        """Record what happens to an instance; Lambda's own machines have no log."""
        provider = self._providers.get(instance.provider or "")
        if provider is None:
            return
        arn = self._realm.capacity_provider_arn(provider.name)
        line = record(event, instance, provider, arn, because, self._now())
        if line is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{provider.name}.log").open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as exc:
            log.warning("provider-log-unwritable", extra={"provider": provider.name, "because": str(exc)})
