"""Which partition a key belongs in: as Java's clients choose it, and librdkafka's `murmur2_random`."""

from __future__ import annotations

_MULTIPLIER, _MASK = 0x5BD1E995, 0xFFFFFFFF


def partition_of_key(key: bytes, partitions: int) -> int:
    """The number of the partition of this key, in a topic of so many: by murmur2, in 32 bits."""
    h = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _MULTIPLIER & _MASK
        k = (k ^ k >> 24) * _MULTIPLIER & _MASK
        h = h * _MULTIPLIER & _MASK ^ k
    if tail := key[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _MULTIPLIER & _MASK
    h = (h ^ h >> 13) * _MULTIPLIER & _MASK
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions
