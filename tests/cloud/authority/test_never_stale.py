"""What an acknowledged request has changed counts for every request that begins after it."""

from __future__ import annotations

import threading

from botocore.exceptions import ClientError

from tests.cloud.authority.test_permissions import Staff, allow, deny

ROUNDS = 25


def test_no_request_is_answered_by_policies_that_are_no_more(owner):
    ada = Staff(owner)
    may = [allow("ec2:DescribeVpcs")]
    may_not = [*may, deny("ec2:*")]
    ada.may(*may_not)
    states: list[bool | None] = [False]  # what counts since each acknowledged change
    changing = threading.Lock()
    ended = threading.Event()
    wrong: list[str] = []

    def ask() -> None:
        ec2 = ada.client()
        while not ended.is_set():
            with changing:
                before = len(states)
                expected = states[-1]
            try:
                ec2.describe_vpcs()
                allowed = True
            except ClientError:
                allowed = False
            with changing:
                unchanged = len(states) == before
            if unchanged and expected is not None and allowed is not expected:
                wrong.append(f"change {before}: {'allowed' if allowed else 'denied'}")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(ROUNDS):
        with changing:
            states.append(None)  # on the way: who asks meanwhile may be told either
        ada.may(*(may_not if number % 2 else may))
        with changing:
            states.append(number % 2 == 0)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
