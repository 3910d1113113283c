"""Public addresses on a TUN device, and NAT beyond loopback, each in a network namespace of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.network import namespace_scenarios as scenarios
from tests.network.namespace import in_namespace


@pytest.mark.parametrize(
    "scenario",
    [
        scenarios.every_port_is_real,
        scenarios.an_address_of_the_pool_is_given_replaced_and_taken_away,
        scenarios.bytes_go_both_ways_in_large_frames,
        scenarios.rules_are_about_the_client,
        scenarios.the_guest_goes_out_by_its_public_address,
        scenarios.the_host_is_refused_by_this_way_too,
        scenarios.the_host_pings_a_guest,
        scenarios.two_guests_reach_each_other_by_their_public_addresses,
        scenarios.addresses_are_refused_by_name,
        scenarios.a_pool_is_gone_with_its_network,
        scenarios.a_device_that_is_taken_away_is_looked_at_no_more,
    ],
    ids=lambda one: one.__name__,
)
def test_in_a_pool(scenario: Callable[[], None]) -> None:
    in_namespace(scenario)


@pytest.mark.parametrize(
    "scenario",
    [
        scenarios.a_guest_goes_out_over_the_hosts_sockets,
        scenarios.a_guest_pings_where_the_host_allows_it,
        scenarios.an_address_that_the_host_has_only_just_got_is_refused,
    ],
    ids=lambda one: one.__name__,
)
def test_with_ordinary_nat(scenario: Callable[[], None]) -> None:
    in_namespace(scenario)
