"""The probe of a guest's ports, without a guest."""

from __future__ import annotations

from celaje.network.port_probe import BATCH, COMMON, COMMON_SECONDS, PortProbe


class Guest:
    def __init__(self, *listening: int) -> None:
        self.listening = set(listening)
        self.asked: list[int] = []
        self.found: list[tuple[int, bool]] = []
        self.probe = PortProbe(0.0, self.asked.append, lambda port, is_open: self.found.append((port, is_open)))

    def tick(self, now: float, answers: bool = True) -> list[int]:
        self.asked.clear()
        self.probe.tick(now)
        for port in self.asked if answers else []:
            self.probe.answer(port, port in self.listening)
        return list(self.asked)


def test_a_guest_that_answers_nothing_is_asked_only_the_common_ports() -> None:
    guest = Guest()
    guest.probe.want(range(1, 65536))
    for second in range(100):
        asked = guest.tick(float(second), answers=False)
        assert set(asked) <= set(COMMON)
    assert guest.probe.deadline >= 99.0


def test_every_port_is_asked_in_turn_and_never_more_than_a_batch_at_once() -> None:
    guest = Guest(33_333)
    guest.probe.want(range(1, 65536))
    now, asked = 0.0, set()
    while len(asked) < 65535:
        batch = guest.tick(now)
        assert len(batch) <= max(BATCH, len(COMMON) + 1)
        asked.update(batch)
        assert guest.probe.deadline > now
        now = guest.probe.deadline
    assert guest.found == [(33_333, True)]


def test_what_was_open_is_asked_again_soon() -> None:
    guest = Guest(33_333)
    guest.probe.want(range(33_000, 34_000))
    now = 0.0
    while not guest.found:
        guest.tick(now, answers=bool(now or guest.probe.answer(33_000, False) is None))
        now = guest.probe.deadline
    guest.listening.clear()
    ends = now + 2 * COMMON_SECONDS
    while now < ends:
        guest.tick(now)
        now = guest.probe.deadline
    assert guest.found == [(33_333, True), (33_333, False)]


def test_what_is_no_more_wanted_is_forgotten() -> None:
    guest = Guest(8080)
    guest.probe.want(range(8000, 9000))
    guest.tick(0.0)
    assert guest.found == [(8080, True)]
    guest.probe.want(range(100, 1000))
    assert guest.found[-1] == (8080, False)
    guest.probe.answer(8080, True)
    assert guest.probe.open == set()
