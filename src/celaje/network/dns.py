"""The network's name server (RFC 1034, 1035; EDNS: RFC 6891).

It is the authority for its own names: NAME and NAME.<domain> of attached interfaces (their host names, their own names
and, as in EC2, ip-10-0-0-5 for 10.0.0.5), their public names in whatever domain, which stand for their private
addresses in here, `router.<domain>`, and what addresses stand for (in-addr.arpa). They have addresses of IPv4 only, so
any other question about them has an answer without data, never "no such name". Everything else is asked of the host's
resolvers by whoever is outside, and comes back as it is, truncated if need be.

Guests are many and hostile: how much is asked at a time is bounded, for each and for all, and identifiers towards the
resolvers are not the guests'.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celaje.network import ipv4
from celaje.network.outside import Answer

if TYPE_CHECKING:
    # Its import takes as long as that of the rest of a network; the first question brings it.
    import dns.message
    import dns.name

PORT = 53
MOST_QUESTIONS = 512  # asked of resolvers at a time
MOST_OF_ONE = 64  # for one interface
PATIENCE = 15.0  # seconds until a resolver's answer is given up
UDP_LIMIT = 512  # bytes of a response over UDP, unless the client says that it takes more (RFC 1035, 4.2.1)
OWN_LIMIT = 1232  # bytes that this server says it takes
TIME_TO_LIVE = 60  # seconds; machines come and go
MESSAGE_LIMIT = 65535
QUERY_LIMIT = 4096  # a question, EDNS options and a signature are less

_HEADER = 12
_RESPONSE = 0x80
_TRUNCATED = 0x02
_OPCODE = 0x78  # of the same byte; 0 is QUERY
_ONE_QUESTION = b"\0\1\0\0\0\0"  # and neither answers nor authorities
_MOST_ADDITIONAL = b"\0\2"  # EDNS and a signature
_OPT = 41  # EDNS's type of record, whose class is a size (RFC 6891, 6.1.2)


@dataclass(frozen=True, slots=True)
class Names:
    """Where names come from: addresses of a host name (in lower case), an address's host name, and the address of a
    public name (in lower case, without the last dot)."""

    addresses: Callable[[str], list[int]]
    host_name: Callable[[int], str | None]
    of_public_name: Callable[[str], int | None]


class _Question:
    """One that was forwarded."""

    __slots__ = ("asked", "asker", "done", "identifier", "limit", "query", "respond")

    def __init__(
        self, asker: str, query: bytes, identifier: bytes, limit: int, asked: float, respond: Callable[[bytes], None]
    ) -> None:
        self.asker = asker
        self.query = query
        self.identifier = identifier
        self.limit = limit
        self.asked = asked
        self.respond = respond
        self.done = False


class NameServer:
    """`resolve` asks the host's resolvers, as Outside.resolve does. `is_inside` says whose addresses it knows the
    names of."""

    def __init__(
        self,
        *,
        domain: str,
        is_inside: Callable[[int], bool],
        names: Names,
        resolve: Callable[[bytes, Answer], None],
        clock: Callable[[], float],
    ) -> None:
        self._domain_text = domain
        self._is_inside = is_inside
        self._names = names
        self._resolve = resolve
        self._clock = clock
        self.refuses = False
        """Every question is refused: whoever keeps the network wants guests to ask others."""
        self._asked: dict[int, _Question] = {}  # by number, in the order they were asked
        self._number = 0
        self._of_asker: dict[str, int] = {}
        self._domain: dns.name.Name | None = None

    def answer(self, asker: str, query: bytes, most: int | None, respond: Callable[[bytes], None]) -> bool:
        """Answers a query by calling `respond`, now or later; False if it is beyond an answer, and none will come.
        `asker`: the interface's name. `most`: bytes that a response may have (UDP: what fits a packet; the client may
        take less), None: the transport has no such limit (TCP)."""
        import dns.message
        import dns.rcode

        if len(query) < _HEADER or query[2] & _RESPONSE:
            return False
        if query[2] & _OPCODE:
            respond(_error(query, dns.rcode.NOTIMP))
            return True
        if len(query) > QUERY_LIMIT or query[4:10] != _ONE_QUESTION or query[10:12] > _MOST_ADDITIONAL:
            respond(_error(query, dns.rcode.FORMERR))
            return True
        if self.refuses:
            respond(_error(query, dns.rcode.REFUSED))
            return True
        try:
            # Records beyond the question, of which a hostile query has hundreds, would be milliseconds of everybody's.
            message = dns.message.from_wire(query, question_only=True)
            payload = _edns_payload(query)
        except Exception:  # a parser, given anything: whatever it says
            respond(_error(query, dns.rcode.FORMERR))
            return True
        if payload is not None:
            message.use_edns(payload=payload)
        limit = MESSAGE_LIMIT if most is None else min(most, max(UDP_LIMIT, payload or UDP_LIMIT))
        own = self._own_answer(message)
        if own is not None:
            respond(own.to_wire(max_size=limit, prefer_truncation=True))
        else:
            self._forward(asker, query, limit, respond)
        return True

    # Its own names.

    def _own_answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """The response to a question about the network's own names; None if it is about others."""
        import dns.flags
        import dns.message
        import dns.name
        import dns.rcode
        import dns.rdataclass
        import dns.rdatatype
        import dns.rrset

        if self._domain is None:
            self._domain = dns.name.from_text(self._domain_text)
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN:
            return None
        name = question.name
        found: list[str] = []
        kind = "A"
        if len(name) == 2:  # a single label and the root: a machine's, or a question for others
            addresses = self._names.addresses(_text(name))
            if not addresses:
                return None
            found = [ipv4.text(address) for address in addresses]
            known = True
        elif name.is_subdomain(self._domain):
            relative = name.relativize(self._domain)
            addresses = self._names.addresses(_text(relative)) if len(relative) == 1 else []
            found = [ipv4.text(address) for address in addresses]
            known = bool(found) or name == self._domain
        elif (public := self._names.of_public_name(name.to_text(omit_final_dot=True).lower())) is not None:
            found = [ipv4.text(public)]
            known = True
        else:
            address = _reverse(name)
            if address is None or not self._is_inside(address):
                return None
            host_name = self._names.host_name(address)
            kind = "PTR"
            found = [] if host_name is None else [f"{host_name}.{self._domain.to_text()}"]
            known = bool(found)
        response = dns.message.make_response(query, recursion_available=True, our_payload=OWN_LIMIT)
        response.flags |= dns.flags.AA
        if not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif found and question.rdtype in (dns.rdatatype.from_text(kind), dns.rdatatype.ANY):
            response.answer.append(dns.rrset.from_text_list(name, TIME_TO_LIVE, "IN", kind, found))
        return response

    # Others' names.

    def _forward(self, asker: str, query: bytes, limit: int, respond: Callable[[bytes], None]) -> None:
        import dns.rcode

        of_asker = self._of_asker.get(asker, 0)
        if of_asker >= MOST_OF_ONE or len(self._asked) >= MOST_QUESTIONS:
            respond(_error(query, dns.rcode.SERVFAIL))
            return
        self._of_asker[asker] = of_asker + 1
        self._number += 1
        number = self._number
        identifier = secrets.token_bytes(2)
        self._asked[number] = _Question(asker, query, identifier, limit, self._clock(), respond)
        self._resolve(identifier + query[2:], lambda response: self._answered(number, response))

    def _answered(self, number: int, response: bytes | None) -> None:
        import dns.rcode

        question = self._asked.pop(number, None)
        if question is None:
            return  # it was given up
        left = self._of_asker[question.asker] - 1
        if left:
            self._of_asker[question.asker] = left
        else:
            del self._of_asker[question.asker]
        query = question.query
        if (
            response is None
            or not _HEADER <= len(response) <= MESSAGE_LIMIT
            or response[:2] != question.identifier
            or not response[2] & _RESPONSE
        ):
            question.respond(_error(query, dns.rcode.SERVFAIL))
        elif len(response) <= question.limit:
            question.respond(query[:2] + response[2:])
        else:
            question.respond(_truncated(query, response))

    def expire(self, now: float) -> None:
        """Gives up the questions that have had no answer for too long."""
        while self._asked:
            number, question = next(iter(self._asked.items()))
            if question.asked + PATIENCE > now:
                return
            self._answered(number, None)

    @property
    def deadline(self) -> float | None:
        """When the oldest question is given up; None if none waits."""
        return next(iter(self._asked.values())).asked + PATIENCE if self._asked else None

    @property
    def asked(self) -> int:
        """Questions that wait for a resolver's answer."""
        return len(self._asked)


def _text(name: dns.name.Name) -> str:
    """A name in lower case, as an interface's host name would be written; something that none has if it is no such
    name."""
    return name.labels[0].decode("ascii", "replace").lower()


def _reverse(name: dns.name.Name) -> int | None:
    """The address that a name of in-addr.arpa asks about; None if it is no such name, or one of fewer octets."""
    labels = [label.decode("ascii", "replace").lower() for label in name.labels]
    if len(labels) != 7 or labels[4:] != ["in-addr", "arpa", ""]:
        return None
    octets = labels[3::-1]
    if not all(octet.isdecimal() and octet.isascii() and len(octet) <= 3 and int(octet) < 256 for octet in octets):
        return None
    return int.from_bytes(bytes(int(octet) for octet in octets), "big")


def _question_end(query: bytes) -> int:
    """Where the first question of a message ends; the header's end if it has none that can be read."""
    at = _HEADER
    while at < len(query) and 0 < query[at] < 64:
        at += 1 + query[at]
    end = at + 5
    return end if at < len(query) and query[at] == 0 and end <= len(query) else _HEADER


def _edns_payload(query: bytes) -> int | None:
    """Bytes of a response that the client takes over UDP, if it says so. `query` has one question. ValueError if what
    follows that is not as many records as its header says."""
    at = _question_end(query)
    payload = None
    for _ in range(int.from_bytes(query[10:12], "big")):
        while at < len(query) and 0 < query[at] < 64:
            at += 1 + query[at]
        at += 2 if query[at : at + 1] >= b"\xc0" else 1
        kind, size, length = (int.from_bytes(query[at + first : at + first + 2], "big") for first in (0, 2, 8))
        if kind == _OPT:
            payload = size
        at += 10 + length
    if at != len(query):
        raise ValueError("records that are cut off, or bytes after them")
    return payload


def _error(query: bytes, code: int) -> bytes:
    """A response without data (RFC 1035, 4.1.1), with the question if it can be read."""
    end = _question_end(query)
    flags = bytes((_RESPONSE | query[2] & 0x79, 0x80 | code & 0x0F))
    return query[:2] + flags + (1 if end > _HEADER else 0).to_bytes(2, "big") + bytes(6) + query[_HEADER:end]


def _truncated(query: bytes, response: bytes) -> bytes:
    """A response that says: ask again over TCP."""
    whole = _error(query, response[3] & 0x0F)
    return whole[:2] + bytes((whole[2] | _TRUNCATED,)) + whole[3:]
