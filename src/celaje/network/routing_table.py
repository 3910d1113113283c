"""What the host's kernel would do with an address, asked of the kernel itself (rtnetlink(7), RTM_GETROUTE).

    nlmsghdr  length u32, type u16, flags u16, sequence u32, port u32
    rtmsg     family u8, dst_len u8, src_len u8, tos u8, table u8, protocol u8, scope u8, type u8, flags u32
    rtattr    length u16, type u16, data, padded to 4 bytes

The answer's `type` says whether the address is the host's own, whatever interface or rule makes it so. Asking costs
some 20 µs; a list of addresses would be as dear to read and would miss ranges that are local by a route.
"""

from __future__ import annotations

import errno
import socket
import struct
from enum import IntEnum

from celaje.errors import HostError

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_RTM_GETROUTE = 26
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_RTA_DST = 1
_NETLINK_ROUTE = 0
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}


class RouteType(IntEnum):
    """Where packets for an address go (rtnetlink's RTN_* numbers)."""

    UNKNOWN = 0
    UNICAST = 1  # another host's
    LOCAL = 2  # the host's own
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


class RoutingTable:
    """Asks the kernel. One socket, which stays open."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
            self._socket.bind((0, 0))
        except OSError as error:
            raise HostError(
                f"cannot ask the kernel for routes ({error.strerror}), so which addresses are its own is not known; "
                "allow AF_NETLINK sockets to celaje's processes"
            ) from error
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def type_of(self, address: int) -> RouteType:
        """Where a packet of this host for the IPv4 address would go."""
        self._sequence += 1
        attribute = _ATTRIBUTE.pack(8, _RTA_DST) + address.to_bytes(4, "big")
        route = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        length = _HEADER.size + len(route) + len(attribute)
        self._socket.send(_HEADER.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, self._sequence, 0) + route + attribute)
        while True:
            answer = self._socket.recv(8192)
            _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
            if sequence == self._sequence:
                break
        if kind == _NLMSG_ERROR:
            number = -_ERROR.unpack_from(answer, _HEADER.size)[0]
            if number in _UNREACHABLE:
                return RouteType.UNREACHABLE
            raise HostError(f"the kernel does not say where {socket.inet_ntoa(address.to_bytes(4, 'big'))} is")
        kind = _ROUTE.unpack_from(answer, _HEADER.size)[7]
        return RouteType(kind) if kind in RouteType._value2member_map_ else RouteType.UNKNOWN
