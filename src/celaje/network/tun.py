"""A TUN device of our own (Linux, Documentation/networking/tuntap.rst): IP packets that the host's kernel routes to it
are read, and what is written to it the kernel takes as received.

Each packet follows a virtio_net_hdr of 12 bytes, as on a machine's link, so that large TCP segments and checksums yet
to be computed pass both ways. Its checksum and header offsets count from the IP header, as there is no Ethernet
header.

Making the device takes CAP_NET_ADMIN. It lives as long as it is held open, and its routes with it.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence

from celaje.errors import HostError
from celaje.network.buffers import Buffer

LINK_HEADER = 12
LONGEST_READ = LINK_HEADER + 65_535

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUN_F_CSUM = 0x01
_TUN_F_TSO4 = 0x02

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8916, 0x891C, 0x8922
_IFF_UP = 0x1

# struct ifreq: name, and a union of which the longest member used is a sockaddr_in.
_flags = struct.Struct("16sH22x")
_number = struct.Struct("16si20x")
_address = struct.Struct("16sHH4s8x8x")


class TunDevice:
    """Up, with `address` (with its prefix length) as the host's own in the network beyond it. HostError if it cannot be
    had."""

    def __init__(self, address: ipaddress.IPv4Interface, mtu: int) -> None:
        self.descriptor = -1
        try:
            self.descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            request = bytearray(_flags.pack(b"celaje%d", _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
            fcntl.ioctl(self.descriptor, _TUNSETIFF, request)
            self.name = bytes(request[:16]).rstrip(b"\0").decode()
            fcntl.ioctl(self.descriptor, _TUNSETVNETHDRSZ, struct.pack("i", LINK_HEADER))
            fcntl.ioctl(self.descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
            self._configure(address, mtu)
        except OSError as error:
            self.close()
            missing = error.errno in (errno.EPERM, errno.EACCES)
            reason = "that takes the right CAP_NET_ADMIN" if missing else error.strerror
            raise HostError(
                f"cannot make a network device for the pool {address.network}: {reason}; "
                "leave the pool out, and machines have addresses of 127/8"
            ) from error

    def _configure(self, address: ipaddress.IPv4Interface, mtu: int) -> None:
        name = self.name.encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, _number.pack(name, mtu))
            fcntl.ioctl(control, _SIOCSIFADDR, _address.pack(name, socket.AF_INET, 0, address.ip.packed))
            fcntl.ioctl(control, _SIOCSIFNETMASK, _address.pack(name, socket.AF_INET, 0, address.netmask.packed))
            held = bytearray(_flags.pack(name, 0))
            fcntl.ioctl(control, _SIOCGIFFLAGS, held)
            flags = _flags.unpack(held)[1]
            fcntl.ioctl(control, _SIOCSIFFLAGS, _flags.pack(name, flags | _IFF_UP))

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def receive(self) -> bytes | None:
        """The next packet after its header; None if there is none now. OSError if the device is there no more."""
        try:
            return os.read(self.descriptor, LONGEST_READ)
        except BlockingIOError:
            return None

    def send(self, parts: Sequence[Buffer]) -> bool:
        """A header and a packet in pieces; False if the kernel does not take it."""
        try:
            os.writev(self.descriptor, parts)
        except OSError:
            return False
        return True
