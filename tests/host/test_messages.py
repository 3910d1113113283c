from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.errors import CelajeError, GuestError, HostError, ImageError, InputError, NotFound, UsageError
from celaje.host import messages
from celaje.host.messages import Answer, Refused, Request

REQUESTS: list[Request] = [
    messages.Start(directory="/a/b", environment={"CELAJE_HOME": "/x"}),
    messages.AttachDisk(disk=messages.AttachedDisk(source="vol-1", read_only=True)),
    messages.SnapshotVolume(volume="vol-1"),
    messages.GrowVolume(volume="vol-1", size=5),
    messages.ConsoleInput(data=bytes(range(256))),
    messages.OpenConsole(tail=5, write=False),
    *(kind() for kind in (messages.Describe, messages.Measure, messages.Pause, messages.Resume, messages.Reset)),
    *(kind() for kind in (messages.PressPowerButton, messages.Kill, messages.WaitForEnd)),
    messages.DetachDisk(source="data"),
    messages.Snapshot(path="/x"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    assert messages.decoded_request(messages.encoded(request_)) == request_


ANSWERS = [kind for kind in get_args(Answer) if kind is not messages.Statistics]  # JSON has no infinities


@given(answer=st.sampled_from(ANSWERS).flatmap(st.from_type))
def test_an_answer_arrives_as_it_was_sent(answer: Answer) -> None:
    answer = msgspec.structs.replace(answer, version=messages.VERSION)
    if isinstance(answer, messages.Description):
        answer = msgspec.structs.replace(answer, started=5.25)
    if isinstance(answer, messages.SnapshotTaken):
        answer = msgspec.structs.replace(answer, pause_seconds=0.25)
    try:
        data = messages.encoded(answer)
    except (UnicodeEncodeError, OverflowError):  # hypothesis' surrogates and large numbers are nothing that is sent
        return
    assert messages.encoded(messages.decoded_answer(data)) == data


def test_statistics_arrive_as_they_were_sent() -> None:
    answer = messages.Statistics(counters={"engine": {"instructions": 5, "seconds": 0.25}})
    assert messages.decoded_answer(messages.encoded(answer)) == answer


VALUES = st.recursive(st.none() | st.integers() | st.text(), st.lists)


@given(data=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_message_is_refused_and_never_raises_anything_else(data: bytes) -> None:
    for decode in (messages.decoded_request, messages.decoded_answer):
        with pytest.raises(messages.Unreadable) as caught:
            decode(data)
        assert caught.value.answer.cause == "malformed"


@pytest.mark.parametrize(
    "data", [b'{"version": 1, "message": "\xff"}', b'{"version": 1, "more": ' + b"[" * 100_000]
)
def test_bytes_that_no_text_or_no_end_have_are_malformed(data: bytes) -> None:
    for decode in (messages.decoded_request, messages.decoded_answer):
        with pytest.raises(messages.Unreadable):
            decode(data)


@pytest.mark.parametrize(
    "change", [{"message": "fly"}, {"more": 1}, {"tail": "x"}, {"message": None}, {"version": 1, "message": 7}]
)
def test_an_unknown_message_or_field_is_malformed(change: dict[str, object]) -> None:
    data = json.dumps({"version": 1, "message": "console", **change}).encode()
    with pytest.raises(messages.Unreadable) as caught:
        messages.decoded_request(data)
    assert caught.value.answer.cause == "malformed"


def test_another_version_is_told_apart_from_a_malformed_message() -> None:
    with pytest.raises(messages.Unreadable, match="has version 2 and must have 1") as caught:
        messages.decoded_request(b'{"version": 2, "message": "whatever", "a": 1}')
    assert caught.value.answer.cause == "version"


def test_a_message_that_no_socket_carries_is_not_sent() -> None:
    with pytest.raises(UsageError, match="send less at once"):
        messages.encoded(messages.ConsoleInput(data=bytes(messages.LONGEST_MESSAGE)))
    assert messages.encoded(messages.ConsoleInput(data=bytes(messages.CONSOLE_PIECE)))


@pytest.mark.parametrize("error", [HostError("a"), InputError("b"), UsageError("c"), NotFound("d"), GuestError("e")])
def test_an_error_is_the_same_where_it_was_asked_for(error: CelajeError) -> None:
    refused = messages.refusal(error)
    again = messages.error_of(refused)
    assert (type(again), str(again)) == (type(error), str(error))


def test_errors_of_a_kind_are_at_least_of_their_kind() -> None:
    assert messages.refusal(ImageError("x")).cause == "input"
    missing = FileNotFoundError(2, "No such file", "/x")
    assert messages.refusal(missing) == Refused(cause="host", reason="/x: No such file")
    assert messages.refusal(TypeError("oops")).cause == "mistake"
