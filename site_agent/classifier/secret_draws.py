"""Random numbers that nobody can compute again. Noise that protects a woman must not follow from a seed that is known.

A ChaCha20 stream (RFC 8439) under a key that is drawn once and forgotten. Gaussian numbers are the sum of four, divided
by two: the last digits of one number that a program makes tell which numbers it cannot be, those of four do not
(Holohan and Braghin, Secure random sampling in differential privacy, ESORICS 2021; the attack: Mironov, CCS 2012).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]

KEY_BYTES = 32
SUMMED = 4
"""Gaussian numbers in one"""
_NONCE = bytes(16)


class SecretDraws:
    """One stream of numbers. `key`: 32 bytes of the system's random numbers, used once."""

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()

    def uniform(self, count: int) -> Floats:
        """Return (count,) numbers between 0 and 1, neither of them included; each of 52 bits."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), "<u8")
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, count: int) -> Floats:
        """Return (count,) Gaussian numbers of mean 0 and deviation 1."""
        each = np.asarray(ndtri(self.uniform(SUMMED * count)), np.float64).reshape(SUMMED, count)
        return np.asarray(each.sum(axis=0) / np.sqrt(SUMMED))
