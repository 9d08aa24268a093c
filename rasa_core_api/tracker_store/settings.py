"""Options of a store, each asked for by its type; what nobody asked for is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration

#: The option that every type of store has.
RETENTION = "retention_days"


class Settings:
    """The members of one entry of an endpoint file; errors name the key path (`where` and the key)."""

    def __init__(self, members: Mapping[str, JSON], where: str) -> None:
        self._members = members
        self._where = where
        self._asked: set[str] = set()

    def _get(self, key: str) -> JSON:
        self._asked.add(key)
        return self._members.get(key)

    def wrong(self, key: str, reason: str) -> InvalidConfiguration:
        """The error for one key."""
        return InvalidConfiguration(f"{self._where}.{key}: {reason}")

    def text(self, key: str, default: str | None) -> str | None:
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "must be a text")
        return value

    def whole(self, key: str, default: int, least: int) -> int:
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.strip().isdecimal():  # from an environment variable
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"must be a whole number, at least {least}")
        return value

    def port(self, key: str, default: int) -> int:
        port = self.whole(key, default, 1)
        if port > 65535:
            raise self.wrong(key, "must be a port, from 1 to 65535")
        return port

    def host(self, key: str, default: str) -> str:
        """A host's name or address alone, where other systems take a whole URL."""
        host = self.text(key, None) or default
        if "/" in host or "@" in host or host.count(":") == 1:
            raise self.wrong(key, "the name of a host is expected, without scheme, port or anything else")
        return host

    def one_of(self, key: str, names: Sequence[str], default: str | None) -> str | None:
        """One of `names`, in capitals or not."""
        value = self.text(key, default)
        if value is None or value.upper() in names:
            return value
        raise self.wrong(key, f"must be one of {', '.join(names)}")

    def kind(self, key: str, older: str | None, default: str) -> tuple[str, str]:
        """What `key` names, and the key that did: `older` is another spelling of it."""
        keys = [name for name in (key, older) if name is not None and self.text(name, None) is not None]
        names = [self.text(name, None) for name in keys]
        if "" in names:
            raise self.wrong(keys[names.index("")], "is empty")
        if len(set(names)) > 1:
            raise self.wrong(keys[1], f"contradicts '{key}'")
        return (names[0] or default, keys[0]) if keys else (default, key)

    def number(self, key: str, default: float, above: float) -> float:
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
            raise self.wrong(key, f"must be a number above {above:g}")
        return value

    def finish(self, kind: str, *others: str) -> None:
        """Refuse the first key that nobody asked for; `others` are known although they were taken out before."""
        for key in self._members:
            if key not in self._asked:
                known = ", ".join(sorted({*self._asked, *others} - {"store_type"}))
                raise self.wrong(str(key), f"'{kind}' has no such option; it has {known}")


def split_retention(members: Mapping[str, JSON] | None, where: str) -> tuple[Mapping[str, JSON] | None, float | None]:
    """The entry without `retention_days`, and its value: days after which conversations go, None where they stay.

    Raises `InvalidConfiguration`.
    """
    if not members or RETENTION not in members:
        return members, None
    days = Settings(members, where).number(RETENTION, 0.0, 0.0)
    rest = {key: value for key, value in members.items() if key != RETENTION}
    return rest, days or None
