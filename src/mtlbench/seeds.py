"""Seeds that are functions of what they are for, the same in every process, on every machine."""

import hashlib


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any printable parts: seed_of(seed, "augment", epoch, index)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
