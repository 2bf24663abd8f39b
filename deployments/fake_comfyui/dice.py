"""Seeded chances: the same configuration shows its faults in the same order."""

from __future__ import annotations

import random


class Dice:
    """One stream of random numbers per name, so that one hazard does not shift the draws of another."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, random.Random] = {}

    def hits(self, name: str, chance: float) -> bool:
        """Draw whether the hazard ``name`` strikes; a chance of 0 draws nothing."""
        return chance > 0 and self._stream(name).random() < chance

    def up_to(self, name: str, limit: float) -> float:
        """Draw a number between 0 and ``limit``."""
        return self._stream(name).uniform(0, limit) if limit else 0.0

    def letters(self, name: str, count: int) -> str:
        """Draw ``count`` lower-case letters."""
        return "".join(self._stream(name).choices("abcdefghijklmnopqrstuvwxyz", k=count))

    def _stream(self, name: str) -> random.Random:
        if name not in self._streams:
            self._streams[name] = random.Random(f"{self._seed}/{name}")  # noqa: S311 -- chances, not secrets
        return self._streams[name]
