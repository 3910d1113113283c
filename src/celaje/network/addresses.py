"""Addresses on the host: the one of 127/8 that a machine's name stands for."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Container

from celaje.errors import HostError

CLOUD = ipaddress.IPv4Network("127.64.0.0/10")
"""Those that a cloud gives its machines, by its own choice: they are no name's."""

_FIRST = int(ipaddress.IPv4Address("127.1.0.1"))  # 127.0/16 is where resolvers and other programs of the host listen
_COUNT = int(ipaddress.IPv4Address("127.255.255.254")) - _FIRST + 1 - CLOUD.num_addresses


def loopback_address(machine: str, taken: Container[str] = ()) -> str:
    """The address of 127/8 for the machine of this name: always the same one, unless that is `taken`, then the next
    that is not. Whoever asks remembers the answer, so that it stays when other machines come and go."""
    start = int.from_bytes(hashlib.blake2b(machine.encode(), digest_size=8).digest(), "little")
    for step in range(_COUNT):
        number = _FIRST + (start + step) % _COUNT
        if number >= int(CLOUD[0]):
            number += CLOUD.num_addresses
        address = str(ipaddress.IPv4Address(number))
        if number & 0xFF not in (0, 255) and address not in taken:
            return address
    raise HostError("every address of 127/8 is taken; remove machines with `celaje vm rm NAME`")
