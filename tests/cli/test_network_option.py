from __future__ import annotations

import pytest

from celaje.cli.network_option import network_options
from celaje.errors import UsageError
from celaje.host.network_options import AllowOption, ForwardOption, HostPortOption, NetworkOptions


def chosen(text: str) -> NetworkOptions:
    found = network_options(text, with_image=False)
    assert found is not None
    return found


def test_a_machine_with_an_image_has_a_network_and_a_bare_kernel_has_none() -> None:
    assert network_options(None, with_image=True) == NetworkOptions()
    assert network_options(None, with_image=False) is None
    assert network_options("none", with_image=True) is None
    assert chosen("user") == NetworkOptions()


def test_forwards_name_the_hosts_address_or_mean_loopback() -> None:
    options = chosen("user,forward=tcp:127.0.0.2:2222:22,forward=udp:0:53")
    assert options.forwards == (
        ForwardOption("tcp", "127.0.0.2", 2222, 22),
        ForwardOption("udp", "127.0.0.1", 0, 53),
    )


def test_ports_of_the_host_are_opened_under_their_own_or_another_number() -> None:
    assert chosen("user,host=tcp:8080,host=tcp:8081:80").host_ports == (
        HostPortOption("tcp", 8080, 8080),
        HostPortOption("tcp", 8081, 80),
    )


def test_ports_of_the_guest_are_allowed_one_by_one_or_as_a_range() -> None:
    assert chosen("user,allow=tcp:80,allow=udp:5000-5010").allowed == (
        AllowOption("tcp", 80, 80),
        AllowOption("udp", 5000, 5010),
    )


def test_the_card_and_its_network_can_be_chosen() -> None:
    options = chosen("user,mac=02:AB:00:00:00:01,bandwidth=100M,network=lab")
    assert (options.mac, options.bandwidth, options.network) == ("02:ab:00:00:00:01", 12_500_000, "lab")


def test_a_public_address_comes_with_its_pool() -> None:
    assert chosen("user,public=198.51.100.5/28").public == "198.51.100.5/28"


@pytest.mark.parametrize(
    "text",
    ["198.51.100.5", "198.51.100.1/28", "198.51.100.0/28", "198.51.100.15/28", "198.51.100.1/31", "here/28", "::1/64"],
)
def test_an_address_that_is_no_machines_in_its_pool_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address with its pool, such as"):
        chosen(f"user,public={text}")


@pytest.mark.parametrize(
    "text",
    [
        "", "bridge", "none,mac=02:00:00:00:00:01", "user,", "user,speed=1", "user,mac", "user,mac=01:00:00:00:00:01",
        "user,mac=00:00:00:00:00:00", "user,mac=2:0:0:0:0:1", "user,bandwidth=0", "user,bandwidth=fast",
        "user,bandwidth=1M,bandwidth=2M", "user,network=Lab", "user,network=", "user,forward=tcp:22",
        "user,forward=sctp:1:2", "user,forward=tcp:localhost:2222:22", "user,forward=tcp:2222:0",
        "user,forward=tcp:1:2:3:4", "user,forward=tcp:70000:22", "user,host=8080", "user,host=tcp:0",
        "user,host=tcp:1:2:3", "user,allow=tcp", "user,allow=tcp:9-8", "user,allow=icmp:1", "user,allow=tcp:1-",
        "user,allow=tcp:٣",
    ],
)  # fmt: skip
def test_what_is_none_of_this_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="celaje vm run --help"):
        network_options(text, with_image=True)
