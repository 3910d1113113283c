"""DNS: the network's own names, and everybody else's."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from celaje.network.dns import MOST_OF_ONE, PATIENCE
from celaje.network.interface import REQUESTS_A_SECOND
from celaje.network.network import NetworkConfig
from celaje.network.statistics import Drop
from celaje.network.stream_service import dns_over_tcp
from tests.network.conversation import DNS, NEEDS_UDP, Machine, World, udp_datagram

SECOND = 0xA9FEA9FD


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a", groups=())  # rules are not about the network's own DNS


def hears(machine: Machine, server: int = DNS, port: int = 5353) -> list[dns.message.Message]:
    found = []
    for seen in machine.hears():
        assert (seen.source, seen.ports) == (server, (53, port))
        found.append(dns.message.from_wire(seen.transport[8:]))
    return found


def asks(machine: Machine, name: str, kind: str = "A", server: int = DNS, **more: int) -> list[dns.message.Message]:
    query = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
    machine.says(machine.udp(server, 5353, 53, query.to_wire()))
    answers = hears(machine, server)
    for answer in answers:
        assert query.is_response(answer)
    return answers


def texts(message: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in message.answer for item in rrset]


@pytest.mark.parametrize("server", [DNS, SECOND])
@pytest.mark.parametrize("name", ["web-1", "web-1.celaje.internal", "WEB-1.Celaje.Internal."])
def test_a_machine_is_found_by_its_name(world: World, a: Machine, name: str, server: int) -> None:
    b = world.machine("web-1")
    [answer] = asks(a, name, server=server)
    assert texts(answer) == ["10.77.0.11"]
    assert b.address == 0x0A4D000B
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA
    assert answer.answer[0].name == dns.name.from_text(name)


def test_a_machine_is_found_by_its_address(world: World, a: Machine) -> None:
    world.machine("b", host_name="front")
    assert [texts(one) for one in asks(a, "11.0.77.10.in-addr.arpa", "PTR")] == [["front.celaje.internal."]]
    assert [texts(one) for one in asks(a, "1.0.77.10.in-addr.arpa", "PTR")] == [["router.celaje.internal."]]
    [nobody] = asks(a, "99.0.77.10.in-addr.arpa", "PTR")
    assert nobody.rcode() == dns.rcode.NXDOMAIN


def test_an_interfaces_name_serves_where_no_host_name_does(world: World, a: Machine) -> None:
    world.machine("b", host_name="front")
    world.machine("front", host_name="b-too")
    assert [texts(one) for one in asks(a, "b.celaje.internal")] == [["10.77.0.11"]]
    assert [texts(one) for one in asks(a, "front.celaje.internal")] == [["10.77.0.11"]]
    assert [texts(one) for one in asks(a, "router.celaje.internal")] == [["10.77.0.1"]]


def test_machines_of_one_host_name_are_all_found(world: World, a: Machine) -> None:
    world.machine("b", host_name="pool")
    world.machine("c", host_name="pool")
    [answer] = asks(a, "pool")
    assert sorted(texts(answer)) == ["10.77.0.11", "10.77.0.12"]


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV"])
def test_a_known_name_has_no_data_of_another_type(a: Machine, kind: str) -> None:
    [answer] = asks(a, "a", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    [answer] = asks(a, "a.celaje.internal", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_an_unknown_name_of_the_domain_does_not_exist_and_is_asked_of_nobody(world: World, a: Machine) -> None:
    for name in ("ghost.celaje.internal", "a.a.celaje.internal"):
        [answer] = asks(a, name)
        assert answer.rcode() == dns.rcode.NXDOMAIN
    [domain] = asks(a, "celaje.internal")
    assert (domain.rcode(), domain.answer) == (dns.rcode.NOERROR, [])
    assert world.outside.questions == []


def test_a_machine_that_is_gone_is_unknown(world: World, a: Machine) -> None:
    b = world.machine("b")
    world.network.detach(b.interface)
    [answer] = asks(a, "b.celaje.internal")
    assert answer.rcode() == dns.rcode.NXDOMAIN


def test_other_names_are_asked_of_the_hosts_resolvers(world: World, a: Machine) -> None:
    assert asks(a, "debian.org", id=0x1111) == []
    [(question, answer)] = world.outside.questions
    forwarded = dns.message.from_wire(question)
    response = dns.message.make_response(forwarded)
    response.answer.append(dns.rrset.from_text("debian.org.", 300, "IN", "A", "192.0.2.7"))
    answer(response.to_wire())
    [heard] = hears(a)
    assert (heard.id, texts(heard)) == (0x1111, ["192.0.2.7"])
    answer(response.to_wire())  # a second time is once too often
    assert hears(a) == []


@pytest.mark.parametrize("name", ["org", "b", "5.113.0.203.in-addr.arpa", "77.10.in-addr.arpa", "x.y.z.w.in-addr.arpa"])
def test_names_that_are_not_its_own_are_others(world: World, a: Machine, name: str) -> None:
    assert asks(a, name, "PTR") == []
    assert len(world.outside.questions) == 1


def test_no_resolver_is_a_failure_that_the_guest_is_told(world: World, a: Machine) -> None:
    asks(a, "debian.org")
    world.outside.questions.pop()[1](None)
    [heard] = hears(a)
    assert heard.rcode() == dns.rcode.SERVFAIL
    assert heard.question[0].name == dns.name.from_text("debian.org")


@pytest.mark.parametrize("response", [b"", bytes(11), bytes(12), b"\xff" * 70000])
def test_nonsense_from_a_resolver_is_a_failure_too(world: World, a: Machine, response: bytes) -> None:
    asks(a, "debian.org")
    world.outside.questions.pop()[1](response)
    assert [one.rcode() for one in hears(a)] == [dns.rcode.SERVFAIL]


def test_an_answer_to_another_identifier_is_a_failure(world: World, a: Machine) -> None:
    asks(a, "debian.org")
    question, answer = world.outside.questions.pop()
    answer(bytes((question[0] ^ 1,)) + question[1:2] + b"\x80" + question[3:])
    assert [one.rcode() for one in hears(a)] == [dns.rcode.SERVFAIL]


def test_a_resolver_that_says_nothing_is_given_up(world: World, a: Machine) -> None:
    asks(a, "debian.org")
    assert world.network.poll(world.now) == world.now + PATIENCE
    world.passes(PATIENCE - 1)
    assert hears(a) == []
    world.passes(1)
    assert [one.rcode() for one in hears(a)] == [dns.rcode.SERVFAIL]
    assert world.network.poll(world.now) is None
    question, answer = world.outside.questions.pop()
    answer(question[:2] + b"\x80" + question[3:])
    assert hears(a) == []


def test_one_machine_cannot_use_up_all_questions(world: World, a: Machine) -> None:
    b = world.machine("b")
    for number in range(MOST_OF_ONE):
        assert asks(a, f"{number}.example") == []
    assert [one.rcode() for one in asks(a, "one-more.example")] == [dns.rcode.SERVFAIL]
    assert asks(b, "debian.org") == []
    for _, answer in world.outside.questions:
        answer(None)
    assert len(hears(a)) == MOST_OF_ONE
    assert asks(a, "again.example") == []


def long_answer(question: bytes, count: int) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(question))
    addresses = [f"192.0.2.{number}" for number in range(count)]
    response.answer.append(dns.rrset.from_text_list("many.example.", 300, "IN", "A", addresses))
    return response.to_wire()


@pytest.mark.parametrize(
    ("options", "count", "whole"),
    [
        ({}, 20, True),
        ({}, 40, False),
        ({"payload": 1232}, 40, True),
        ({"payload": 4096}, 80, True),
        ({"payload": 4096}, 120, False),
    ],
)
def test_an_answer_that_does_not_fit_is_truncated(
    world: World, a: Machine, options: dict[str, int], count: int, whole: bool
) -> None:
    """Without EDNS 512 bytes, with it what the client takes, and never more than the MTU."""
    asks(a, "many.example", **({"use_edns": 0} if options else {}), **options)
    question, answer = world.outside.questions.pop()
    answer(long_answer(question, count))
    [heard] = hears(a)
    assert (len(texts(heard)), bool(heard.flags & dns.flags.TC)) == ((count, False) if whole else (0, True))


def test_over_tcp_an_answer_may_be_as_long_as_it_likes(world: World, a: Machine) -> None:
    query = dns.message.make_query("many.example", "A")
    heard: list[bytes] = []
    world.network.resolve(a.interface, query.to_wire(), heard.append)
    question, answer = world.outside.questions.pop()
    answer(long_answer(question, 200))
    assert len(texts(dns.message.from_wire(heard.pop()))) == 200
    world.network.resolve(a.interface, dns.message.make_query("a", "A").to_wire(), heard.append)
    assert texts(dns.message.from_wire(heard.pop())) == ["10.77.0.10"]
    world.network.resolve(a.interface, b"\0", heard.append)
    assert heard == []
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 1}


def test_other_operations_are_not_implemented(a: Machine) -> None:
    query = dns.message.make_query("a", "A")
    query.set_opcode(dns.opcode.STATUS)
    a.says(a.udp(DNS, 5353, 53, query.to_wire()))
    assert [one.rcode() for one in hears(a)] == [dns.rcode.NOTIMP]


@pytest.mark.parametrize(
    "query",
    [
        bytes.fromhex("123401000001000000000000") + b"\x3f",
        bytes.fromhex("123401000001000000000000") + b"\xc0\x0c\0\1\0\1",
        bytes.fromhex("123401000002000000000000") + b"\1a\0\0\1\0\1\1b\0\0\1\0\1",
        bytes.fromhex("123401000000000000000000"),
        bytes.fromhex("123401000001000000000000") + b"\1a\0\0\1\0\1trailing",
        bytes.fromhex("123401000001000000000001") + b"\1a\0\0\1\0\1",
    ],
)
def test_a_malformed_query_is_answered_as_such(a: Machine, query: bytes) -> None:
    a.says(a.udp(DNS, 5353, 53, query))
    assert [one.rcode() for one in hears(a)] == [dns.rcode.FORMERR]


@pytest.mark.parametrize("query", [b"", bytes(11), bytes.fromhex("123481000001000000000000") + b"\1a\0\0\1\0\1"])
def test_what_is_no_query_is_dropped(a: Machine, query: bytes) -> None:
    a.says(a.udp(DNS, 5353, 53, query))
    assert hears(a) == []
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 1}


def test_checksums_are_verified_or_left_to_be_computed(a: Machine) -> None:
    query = dns.message.make_query("a", "A").to_wire()
    datagram = bytearray(udp_datagram(a.address, 5353, DNS, 53, query))
    datagram[6] ^= 1
    a.says(a.ip(DNS, 17, bytes(datagram)))
    assert a.interface.statistics.dropped == {Drop.CHECKSUM: 1}
    a.says(a.ip(DNS, 17, bytes(datagram), NEEDS_UDP))
    assert len(hears(a)) == 1


def test_an_answer_for_a_machine_that_is_gone_goes_nowhere(world: World, a: Machine) -> None:
    asks(a, "debian.org")
    world.network.detach(a.interface)
    world.outside.questions.pop()[1](None)
    assert a.hears_messages() == []


def test_no_machine_asks_more_than_a_thousand_times_a_second(world: World, a: Machine) -> None:
    query = a.udp(DNS, 5353, 53, b"\0")
    for _ in range(1100):
        a.says(query)
    assert a.interface.statistics.dropped == {Drop.MALFORMED: 1024, Drop.RATE: 76}
    world.passes(1)
    assert len(asks(a, "a")) == 1


def test_a_query_longer_than_any_is_malformed(world: World, a: Machine) -> None:
    heard: list[bytes] = []
    query = dns.message.make_query("a", "A").to_wire()
    world.network.resolve(a.interface, query + bytes(4097 - len(query)), heard.append)
    assert dns.message.from_wire(heard.pop()).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize("section", [6, 8, 10])
def test_records_that_no_query_has_are_not_looked_at(
    world: World, a: Machine, monkeypatch: pytest.MonkeyPatch, section: int
) -> None:
    query = bytearray(dns.message.make_query("a", "A").to_wire())
    query[section : section + 2] = (100).to_bytes(2, "big")
    query += b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd" * 100
    monkeypatch.delattr(dns.message, "from_wire")
    heard: list[bytes] = []
    assert world.network.resolve(a.interface, bytes(query), heard.append)
    assert heard.pop()[3] & 0x0F == dns.rcode.FORMERR


def test_options_of_a_query_cost_nothing_and_its_size_is_heeded(world: World, a: Machine) -> None:
    options = [dns.edns.GenericOption(65_001, b"") for _ in range(300)]
    query = dns.message.make_query("a", "A", use_edns=0, payload=1400, options=options)  # type: ignore[arg-type]
    heard: list[bytes] = []
    assert world.network.resolve(a.interface, query.to_wire(), heard.append)
    answer = dns.message.from_wire(heard.pop())
    assert texts(answer) == ["10.77.0.10"]
    assert answer.edns == 0
    assert not answer.options


def test_a_domain_of_one_label_serves() -> None:
    world = World(NetworkConfig(domain="lab"))
    a = world.machine("a")
    assert [texts(one) for one in asks(a, "a.lab")] == [["10.77.0.10"]]


def test_questions_over_tcp_are_limited_as_those_over_udp_are(world: World) -> None:
    a = world.machine("a")
    query = dns.message.make_query("a", "A").to_wire()
    heard: list[bytes] = []
    answered = [world.network.resolve(a.interface, query, heard.append) for _ in range(REQUESTS_A_SECOND + 1)]
    assert answered == [True] * REQUESTS_A_SECOND + [False]
    assert len(heard) == REQUESTS_A_SECOND
    assert a.dropped(Drop.RATE) == 1
    world.passes(1.0)
    assert world.network.resolve(a.interface, query, heard.append)


def test_a_connection_whose_question_is_not_answered_ends() -> None:
    closed: list[bool] = []
    service = dns_over_tcp(lambda query, answer: False)
    receive = service(lambda data: None, lambda: closed.append(True), lambda hops: None)
    receive(b"\0\x01a\0\x01b\0\x01c")
    assert closed == [True]
