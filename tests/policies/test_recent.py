"""Tests of the bounded map."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.policies.recent import Recent


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=200), st.integers(1, 5))
def test_bounds(steps: list[tuple[bool, int]], limit: int) -> None:
    """It remembers the `limit` entries used last, never invents one and never holds more than twice as many."""
    recent: Recent[int, str] = Recent(limit)
    used: list[int] = []
    for writes, key in steps:
        if writes:
            recent.put(key, str(key))
        found = recent.get(key)
        assert found in ((str(key),) if writes or key in used[-limit:] else (None, str(key)))
        if found is not None:
            used = [other for other in used if other != key] + [key]
        assert len(recent) <= 2 * limit
