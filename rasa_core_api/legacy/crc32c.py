"""CRC-32C (Castagnoli), the checksum in TensorFlow's files, at some 300 megabytes a second in numpy.

The checksum is linear over bits: data is cut into equal lanes whose remainders are computed side by side and then
folded in pairs, the earlier one moved on by as many zero bytes as the later one has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits in reverse order
SHORT = 2_048  # bytes below which a plain loop is faster
LANES = 2_048
_ONES = 0xFFFFFFFF


def unmask(value: int) -> int:
    """The checksum behind a stored one: TensorFlow rotates it to the right by 15 and adds a constant."""
    rotated = (value - 0xA282EAD8) & _ONES
    return (rotated >> 17 | rotated << 15) & _ONES


def crc32c(data: bytes) -> int:
    """The checksum of `data`."""
    return _short(data) if len(data) < SHORT else _long(data)


@lru_cache(maxsize=1)
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def _short(data: bytes) -> int:
    table = _table()
    state = _ONES
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state ^ _ONES


@lru_cache(maxsize=1)
def _word_tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The remainder after 32 more bits, for the low and for the high half of a state."""
    import numpy as np

    one = np.array(_table(), dtype=np.uint32)
    tables = [one]
    for _ in range(3):
        last = tables[-1]
        tables.append(last >> np.uint32(8) ^ one[last & np.uint32(0xFF)])
    low = np.bitwise_xor.outer(tables[2], tables[3]).ravel()
    high = np.bitwise_xor.outer(tables[0], tables[1]).ravel()
    return low, high


def _times(matrix: list[int], vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


@lru_cache(maxsize=64)
def _zeros(power: int) -> tuple[int, ...]:
    """What 2**power zero bytes do to each bit of a state, as the columns of a matrix."""
    if power == 0:
        table = _table()
        return tuple(table[1 << bit] if bit < 8 else 1 << (bit - 8) for bit in range(32))
    half = list(_zeros(power - 1))
    return tuple(_times(half, column) for column in half)


def _long(data: bytes) -> int:
    import numpy as np

    low, high = _word_tables()
    # as many words a lane as a power of two, so that folding needs powers of two only; zeros in front change nothing
    words = 1 << max(0, (len(data) // (4 * LANES)).bit_length())
    lanes = 1 << (-(-len(data) // (4 * words)) - 1).bit_length()
    padded = np.zeros(4 * words * lanes, dtype=np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, dtype=np.uint8)
    padded[start : start + 4] ^= 0xFF  # the state begins with all bits set
    columns = np.ascontiguousarray(padded.view("<u4").reshape(lanes, words).T)
    state = np.zeros(lanes, dtype=np.uint32)
    for column in columns:
        state ^= column
        halves = state.view(np.uint16)
        if np.little_endian:
            state = low[halves[0::2]] ^ high[halves[1::2]]
        else:
            state = low[halves[1::2]] ^ high[halves[0::2]]
    power = (4 * words).bit_length() - 1
    while len(state) > 1:
        earlier, later = state[0::2], state[1::2]
        moved = np.zeros_like(earlier)
        for bit, column in enumerate(_zeros(power)):
            moved ^= (earlier >> np.uint32(bit) & np.uint32(1)) * np.uint32(column)
        state = moved ^ later
        power += 1
    return int(state[0]) ^ _ONES
