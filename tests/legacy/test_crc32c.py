"""The checksum equals the published one and the plain loop, at every length."""

from __future__ import annotations

import random

import pytest

from rasa_core_api.legacy import crc32c


def test_published_values() -> None:
    """The test values of RFC 3720, appendix B.4."""
    assert crc32c.crc32c(b"") == 0
    assert crc32c.crc32c(b"123456789") == 0xE3069283
    assert crc32c.crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c.crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("length", [4, 5, 7, 8, 100, 2047, 2048, 2049, 8191, 8192, 8193, 20_000, 65_536])
def test_lanes(length: int) -> None:
    """Lanes side by side give what one long loop gives."""
    data = random.Random(length).randbytes(length)
    assert crc32c._long(data) == crc32c._short(data)


def test_unmask() -> None:
    """The stored form is undone."""
    value = 0x12345678
    stored = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert crc32c.unmask(stored) == value
