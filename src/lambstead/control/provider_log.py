"""Writes the system log of capacity providers: one log stream per provider and day, one JSON object per line.

Kept as the logs of functions are (`core.log_streams`), in a folder that no function can be named after, so that CloudWatch's API finds it. A line that cannot be written is dropped, as AWS drops what the
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
from lambstead.core.log_streams import GROUP_SUFFIX, PROVIDERS_FOLDER, TIMES_SUFFIX, file_name, stamp
from lambstead.core.provider_log import InstanceEvent, log_group, log_stream, record

log = logging.getLogger(__name__)


class ProviderLog:
    """See the module."""

    def __init__(self, logs: Path, realm: Realm, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder = logs / PROVIDERS_FOLDER
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
            self._append(provider, msgspec.json.encode(line) + b"\n")
        except OSError as exc:
            log.warning("provider-log-unwritable", extra={"provider": provider.name, "because": str(exc)})

    def _append(self, provider: CapacityProvider, line: bytes) -> None:
        now, group = self._now(), log_group(provider)
        path = self._folder / file_name(log_stream(provider, now))
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            path.with_suffix(GROUP_SUFFIX).write_text(group)
        with path.open("ab") as file, path.with_suffix(TIMES_SUFFIX).open("ab") as times:
            # First the stamp: a line never stands without its time.
            times.write(stamp(file.tell(), int(now.timestamp() * 1000)))
            times.flush()
            file.write(line)
