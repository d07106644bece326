"""How many tokens a second the scorer does, learned from its passes. It reads no clock."""

from __future__ import annotations


class PassRate:
    """Tokens a second, and the tokens that take `pass_s` seconds at that rate.

    A pass of less than half of `pass_s` is mostly launch or cache: it shows that the scorer is at
    least that fast, never that it is slower. Seconds a token are averaged, not tokens a second: so
    one slow pass corrects a rate that cached pairs have blown up. `tokens_per_s` is what is known
    before the first pass.
    """

    def __init__(self, pass_s: float, tokens_per_s: float | None = None) -> None:
        self.pass_s = pass_s
        self._token_s: float | None = 1 / tokens_per_s if tokens_per_s else None

    @property
    def tokens_per_s(self) -> float | None:
        """The rate, or None while nothing is known of it."""
        return None if self._token_s is None else 1 / self._token_s

    def record(self, tokens: int, seconds: float) -> None:
        """Learn from one pass."""
        if tokens <= 0 or seconds <= 0:
            return
        new, old = seconds / tokens, self._token_s
        if old is None:
            self._token_s = new
        elif new < old or 2 * seconds >= self.pass_s:
            self._token_s = (new + old) / 2

    def pass_tokens(self, max_tokens: int) -> float:
        """Return what fits a pass: `max_tokens`, or less where those would take longer."""
        rate = self.tokens_per_s
        return max_tokens if rate is None else min(max_tokens, rate * self.pass_s)
