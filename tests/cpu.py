"""A limit that tells linear work from work that grows with the square, on any machine: no measure of speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_limit(seconds: float = 10.0) -> Iterator[None]:
    """Fails where the block takes so much CPU: most machines need a tenth of it at most, the square takes minutes."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds
