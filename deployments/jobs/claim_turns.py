"""Claims that offer the same look at a queue one after another: an arrival wakes all of them, and one look tells what each would find.

Without this every open claim put a look of its own into the transaction that the one waits for who gets the job: with 32 of them a job
waited 50 ms for its worker, with one 6.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from deployments.jobs.model import Claim


@dataclass(slots=True)
class Turn:
    """The claims of one pool that offer the same."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrival: asyncio.Event | None = None  # the next arrival, as of the last look that found nothing
    due: float | None = None  # when, by that look, a job may run that must wait now

    def found_nothing(self, arrival: asyncio.Event, due: float | None) -> None:
        """Note a look in vain, made after ``arrival`` was taken from the board."""
        self.arrival, self.due = arrival, due

    def is_empty(self, arrival: asyncio.Event, now: float) -> bool:
        """Whether another look would find nothing: nothing has arrived since the last one, and nothing has become due."""
        return self.arrival is arrival and (self.due is None or now < self.due)


class ClaimTurns:
    """The turns by what is offered. Offers are few: a pool's engines, or the tags of its backends."""

    def __init__(self) -> None:
        self._turns: defaultdict[tuple[str, frozenset[str]], Turn] = defaultdict(Turn)

    def of(self, claim: Claim) -> Turn:
        """Return the turn of a claim."""
        return self._turns[claim.pool, claim.capabilities]
