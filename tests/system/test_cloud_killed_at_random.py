"""The API under a client that does anything, while its processes are killed: what was acknowledged comes true, state
and world agree, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from celaje.cloud.iam.accounts import root_account
from celaje.cloud.reconcile.instance_decision import RECOVERIES
from celaje.cloud.state.addresses import PublicAddress
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.networks import NetworkInterface
from celaje.disk.volumes import VolumeStore
from celaje.host import record
from celaje.host.record import MachineDirectory
from celaje.network import client as network_client
from celaje.network import spawn
from tests.system.cloud_host import REGION, CloudHost, kill, until
from tests.system.tiny_image import AMI, register_tiny_image, write_tiny_image

_NOT_NOW = ("IncorrectInstanceState", "IncorrectState")


class KilledCloud(RuleBasedStateMachine):
    """`wanted` is what was acknowledged, by instance."""

    homes: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        home = self.homes()
        os.environ["CELAJE_HOME"] = str(home)
        write_tiny_image(home)
        self.cloud = CloudHost(home, None)
        self.cloud.up()
        with self.cloud.database() as database:
            with database.read() as session:
                account = root_account(session).id
            register_tiny_image(database, account, REGION)
        self.ec2 = self.cloud.client()
        self.wanted: dict[str, str] = {}
        self.kills: dict[str, int] = {}

    def _some(self, data: st.DataObject, *wanted: str) -> str | None:
        found = sorted(instance for instance, state in self.wanted.items() if state in wanted)
        return data.draw(st.sampled_from(found)) if found else None

    @rule(count=st.integers(1, 2))
    @precondition(lambda self: len(self.wanted) < 6)
    def run(self, count: int) -> None:
        """Instances that are asked for come."""
        answer = self.ec2.run_instances(ImageId=AMI, InstanceType="t3.nano", MinCount=count, MaxCount=count)
        self.wanted |= {one["InstanceId"]: "running" for one in answer["Instances"]}

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        """By force: this guest hears no button. Refused while it is pending."""
        instance = self._some(data, "running", "stopped")
        with contextlib.suppress(ClientError), _refused(*_NOT_NOW):
            if instance is not None:
                self.ec2.stop_instances(InstanceIds=[instance], Force=True)
                self.wanted[instance] = "stopped"

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """Refused while it is stopping."""
        instance = self._some(data, "running", "stopped")
        with contextlib.suppress(ClientError), _refused(*_NOT_NOW):
            if instance is not None:
                self.ec2.start_instances(InstanceIds=[instance])
                if self.wanted[instance] == "stopped":  # one that runs is left alone, and what it has suffered counts
                    self.kills.pop(instance, None)
                self.wanted[instance] = "running"

    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        """At any time."""
        instance = self._some(data, "running", "stopped", "terminated")
        if instance is not None:
            self.ec2.terminate_instances(InstanceIds=[instance])
            self.wanted[instance] = "terminated"

    @rule()
    def kill_the_daemon(self) -> None:
        """And start another one."""
        self.cloud.kill()
        self.cloud.up()
        self.ec2 = self.cloud.client()

    @rule(data=st.data())
    def kill_a_machine(self, data: st.DataObject) -> None:
        """As often as it is recovered."""
        instance = self._some(data, "running")
        if instance is None or self.kills.get(instance, 0) >= RECOVERIES:
            return
        process = MachineDirectory.of(instance).holder()
        if process is not None:
            self.kills[instance] = self.kills.get(instance, 0) + 1
            kill(process)

    @rule()
    def kill_a_network(self) -> None:
        """Its machines start another one."""
        for network in self.cloud.networks():
            process = int(spawn.lock_path(network).read_text().split()[0])
            kill(process)

    @rule()
    def come_to_rest(self) -> None:
        """State and world agree."""
        try:
            until(lambda: not self._disagreements(), "what was acknowledged")
        except AssertionError as error:
            log = (Path(os.environ["CELAJE_HOME"]) / "cloud" / "log").read_text(errors="replace")
            raise AssertionError(f"{error}: {self._disagreements()}\nthe daemon said last:\n{log[-6000:]}") from None
        with self.cloud.database() as database, database.read() as session:
            rows = {row.id: row for row in session.query(Instance)}
            here = {instance for instance, state in self.wanted.items() if state != "terminated"}
            assert {one.instance for one in session.query(NetworkInterface)} == here
            held = {one.public_address for one in session.query(NetworkInterface)} - {""}
            assert {one.address for one in session.query(PublicAddress)} == held
            assert len(held) == sum(1 for state in self.wanted.values() if state == "running")
        assert {instance: row.state for instance, row in rows.items()} == self.wanted

    def _disagreements(self) -> dict[str, object]:
        """What of state and world is not yet as it was acknowledged."""
        found = {
            one["InstanceId"]: one["State"]["Name"]
            for reservation in self.ec2.describe_instances()["Reservations"]
            for one in reservation["Instances"]
        }
        running = sorted(instance for instance, state in self.wanted.items() if state == "running")
        here = sorted(instance for instance, state in self.wanted.items() if state != "terminated")
        machines = record.names()
        alive = sorted(name for name in machines if MachineDirectory.of(name).holder() is not None)
        # One that was terminated before it ever started has never had a machine; one that waits has one later.
        attached = sorted(
            one.interface for network in self.cloud.networks() for one in network_client.interfaces(network)
        )
        pairs = {
            "states": (found, self.wanted),
            "machines": (machines, here),
            "processes": (alive, running),
            "interfaces": (attached, running),
            "volumes": (len(VolumeStore().names()), len(here)),
            "removals": (record.hidden(), []),
        }
        return {name: {"is": is_, "should be": should} for name, (is_, should) in pairs.items() if is_ != should}

    def teardown(self) -> None:
        """Whatever a run ends in comes true; then everything goes."""
        try:
            self.come_to_rest()
            assert self.cloud.down() == 0
        finally:
            self.cloud.end()


@contextlib.contextmanager
def _refused(*codes: str):  # type: ignore[no-untyped-def]  # a context manager of tests
    try:
        yield
    except ClientError as error:
        assert error.response["Error"]["Code"] in codes, error
        raise


def _run(tmp_path: Path, examples: int, steps: int) -> None:
    numbers = iter(range(10_000))

    class Machine(KilledCloud):
        homes = staticmethod(lambda: tmp_path / f"h{next(numbers)}")

    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=steps))


def test_whatever_is_killed_what_was_acknowledged_comes_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path))  # put back afterwards
    _run(tmp_path, examples=2, steps=12)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_and_does_so_in_many_more_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path))
    _run(tmp_path, examples=20, steps=30)
