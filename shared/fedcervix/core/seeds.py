"""Where every random number comes from: (run seed, purpose, names...) and nothing else.

Rules
1. No module of this project draws from a global generator.
2. Two purposes never share a stream; adding a draw to one leaves the others untouched.
3. A seed depends on *what is drawn*, never on how often something was drawn before. That is why a run that was
   killed and resumed draws the same numbers as one that was not.
"""

from __future__ import annotations

import hashlib

SEED_BITS = 63  # torch.Generator.manual_seed takes a signed 64-bit integer


def derive(seed: int, purpose: str, *names: str | int) -> int:
    """Return the seed of one stream: an integer in [0, 2**63).

    `names` say which stream of this purpose: site, epoch, step, ... Order matters; 1 and "1" are the same name.
    """
    text = "\x1f".join([str(seed), purpose, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)
