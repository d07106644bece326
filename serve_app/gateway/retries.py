"""How often work of lost replicas is sent again. It knows replicas by name only."""

from __future__ import annotations

_REMEMBERED = 1000


class RetryBudget:
    """Lets every unit of a lost replica go once more, until many replicas are lost.

    A replica can hold hundreds of units, so it is the loss of a replica that is counted, once. The
    budget is `burst` replicas, and earns `share` of one with every request: where replica after
    replica dies, the work itself may be what kills them, and the pool is not hit twice as hard.
    """

    def __init__(self, share: float, burst: float = 10.0) -> None:
        self.share = share
        self._burst = burst
        self._left = burst
        # A dictionary as an ordered set: the oldest is forgotten first.
        self._counted: dict[str, None] = {}

    def earn(self) -> None:
        """Count one request."""
        self._left = min(self._burst, self._left + self.share)

    def allows(self, replica: str) -> bool:
        """Say whether a unit of a lost replica may be sent again; an empty name is a new one."""
        if self.share <= 0:
            return False
        if replica in self._counted:
            return True
        if self._left < 1:
            return False
        self._left -= 1
        if replica:
            self._counted[replica] = None
            if len(self._counted) > _REMEMBERED:
                del self._counted[next(iter(self._counted))]
        return True
