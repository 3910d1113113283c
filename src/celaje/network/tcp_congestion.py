"""How much one end of a TCP connection may have on the way, and how long it waits for an answer.

The link to a guest is a queue on this host: it keeps the order, and loses frames only where the guest does not take
them fast enough. So the first window is what one message of the link carries, and the rest is RFC 5681's slow start
and congestion avoidance, with RFC 6675's recovery; windows in bytes. Times follow RFC 6298.
"""

from __future__ import annotations

FIRST_WINDOW = 0xFFFF
_FIRST_TIMEOUT = 1.0


class Congestion:
    """Congestion window, slow start threshold, recovery point and retransmission timeout of one connection."""

    __slots__ = ("_smoothed", "_variation", "duplicates", "recovery", "threshold", "timeout", "window")

    def __init__(self) -> None:
        self.window = FIRST_WINDOW  # cwnd
        self.threshold = 1 << 30  # ssthresh
        self.recovery: int | None = None  # while recovering: the sequence number whose acknowledgment ends it
        self.duplicates = 0  # duplicate acknowledgments in a row
        self.timeout = _FIRST_TIMEOUT  # RTO before backing off, seconds
        self._smoothed = 0.0  # SRTT; 0 before the first measurement
        self._variation = 0.0  # RTTVAR

    def measured(self, round_trip: float, shortest: float, longest: float) -> None:
        """Take a round trip's time into account (RFC 6298, 2)."""
        if self._smoothed == 0.0:
            self._smoothed = round_trip
            self._variation = round_trip / 2
        else:
            self._variation += (abs(self._smoothed - round_trip) - self._variation) / 4
            self._smoothed += (round_trip - self._smoothed) / 8
        self.timeout = min(max(self._smoothed + 4 * self._variation, shortest), longest)

    def acknowledged(self, count: int, mss: int, widest: int) -> None:
        """`count` bytes have arrived, and nothing seems lost: widen the window, at most to `widest`."""
        window = self.window
        if window < self.threshold:
            window += count
        else:
            window += max(mss * count // window, 1)
        self.window = min(window, widest)

    def lost(self, on_the_way: int, mss: int, recovery: int) -> None:
        """Something sent before `recovery` is lost, as acknowledgments tell: halve."""
        self.threshold = self.window = max(on_the_way // 2, 2 * mss)
        self.recovery = recovery

    def timed_out(self, on_the_way: int, mss: int, recovery: int) -> None:
        """No acknowledgment came in time: begin again with one segment."""
        self.threshold = max(on_the_way // 2, 2 * mss)
        self.window = mss
        self.recovery = recovery
        self.duplicates = 0
