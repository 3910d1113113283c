"""Two connections against each other: whatever the link does, all bytes arrive in order and both ends close."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network.tcp import RESET, TcpSettings
from tests.network.tcp_link import Link, Weather

rates = st.sampled_from([0.0, 0.0, 0.02, 0.1, 0.3])
sequences = st.sampled_from([0, 12345, 2**31 - 3, 2**31 + 7, 2**32 - 1, 2**32 - 70_000, 2**32 - 300_000])
lengths = st.sampled_from([0, 1, 1000, 20_000, 300_000])
tcp_settings = st.builds(
    TcpSettings,
    mss=st.sampled_from([100, 536, 1460, 8960]),
    send_capacity=st.sampled_from([5000, 65536, 512 << 10]),
    receive_capacity=st.sampled_from([1000, 65535, 100_000, 512 << 10]),
    retries=st.just(60),
    syn_retries=st.just(60),
    longest_timeout=st.just(5.0),
)
weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    drop=rates,
    duplicate=rates,
    reorder=rates,
    split=st.sampled_from([0.0, 0.5, 1.0]),
    most_faults=st.integers(0, 200),
)


@settings(deadline=None, max_examples=100)
@given(weathers, st.tuples(tcp_settings, tcp_settings), st.tuples(sequences, sequences), lengths, lengths)
def test_all_bytes_arrive_in_order_and_both_ends_close(
    weather: Weather, both: tuple[TcpSettings, TcpSettings], initial: tuple[int, int], there: int, back: int
) -> None:
    link = Link(weather, both, initial)
    bytes_of = random.Random(there + back).randbytes
    link.alice.to_send, link.bob.to_send = bytes_of(there), bytes_of(back)
    link.run()
    assert link.bob.got == link.alice.to_send
    assert link.alice.got == link.bob.to_send
    assert not (link.alice.events | link.bob.events) & RESET


def test_without_faults_a_megabyte_takes_as_many_segments_as_its_large_frames() -> None:
    link = Link(Weather(1, 0.0, 0.0, 0.0, 0.0, 0), (TcpSettings(), TcpSettings()), (2**32 - 500_000, 7))
    link.alice.to_send = bytes(1 << 20)
    link.run()
    assert link.bob.got == link.alice.to_send
    assert link.transmitted < 100
