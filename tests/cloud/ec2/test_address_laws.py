"""Laws of public addresses, whatever is done with them in whatever order, by two accounts on a small pool."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import select

from celaje.cloud.aws.action import Call, Caller
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import addresses, network_interface_actions, network_interfaces, subnets
from celaje.cloud.ec2.public_addresses import assign_public, effective_address, release_public
from celaje.cloud.iam.accounts import ensure_first_state, open_account
from celaje.cloud.settings import Settings
from celaje.cloud.state.addresses import ElasticAddress, PublicAddress
from celaje.cloud.state.database import Database
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.instances import Instance, MetadataOptions
from celaje.cloud.state.networks import NetworkInterface

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
POOL = Settings(public_pool="127.64.0.0/29")  # six addresses
REGION = "us-east-1"
EXPECTED = {
    "InsufficientAddressCapacity",
    "InvalidAllocationID.NotFound",
    "InvalidIPAddress.InUse",
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidParameterValue",
    "Resource.AlreadyAssociated",
}


class Addresses(RuleBasedStateMachine):
    """Two accounts that allocate, associate, start and stop."""

    allocations = Bundle("allocations")
    interfaces = Bundle("interfaces")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.directory.name) / "state.sqlite3")
        self.database.prepare()
        with self.database.write() as session:
            ensure_first_state(session, POOL, NOW)
            self.accounts = [open_account(session, name, POOL, NOW)[0].id for name in ("one", "two")]

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    def ask(self, account: int, action: Any, **request: object) -> Any:
        """The answer, or None where it is refused as it may be."""
        owner = self.accounts[account]
        try:
            with self.database.write() as session:
                caller = Caller(owner, f"arn:aws:iam::{owner}:root", owner)
                call = Call("ec2", action.__name__, REGION, caller, "test", NOW, session, settings=POOL)
                return action(call, request)
        except AwsError as error:
            assert error.code in EXPECTED, error
            return None

    @rule(target=allocations, account=st.integers(0, 1))
    def allocate(self, account: int) -> tuple[int, str] | None:
        answer = self.ask(account, addresses.allocate_address)
        return (account, answer["AllocationId"]) if answer else None

    @rule(target=interfaces, account=st.integers(0, 1))
    def make_interface(self, account: int) -> tuple[int, str]:
        with self.database.read() as session:
            of_account = select(subnets.Subnet.id).where(subnets.Subnet.account == self.accounts[account])
            subnet = session.scalars(of_account.where(subnets.Subnet.region == REGION)).first()
        answer = self.ask(account, network_interface_actions.create_network_interface, SubnetId=subnet)
        return account, answer["NetworkInterface"]["NetworkInterfaceId"]

    @rule(allocation=allocations, interface=interfaces, by=st.integers(0, 1), may_move=st.none() | st.booleans())
    def associate(self, allocation: Any, interface: Any, by: int, may_move: bool | None) -> None:
        if allocation is None:
            return
        flag = {} if may_move is None else {"AllowReassociation": may_move}
        answer = self.ask(
            by, addresses.associate_address, AllocationId=allocation[1], NetworkInterfaceId=interface[1], **flag
        )
        assert answer is None or by == allocation[0] == interface[0]

    @rule(allocation=allocations)
    def disassociate(self, allocation: Any) -> None:
        if allocation is None:
            return
        with self.database.read() as session:
            row = session.get(ElasticAddress, allocation[1])
        if row is not None and row.association:
            assert self.ask(allocation[0], addresses.disassociate_address, AssociationId=row.association) is not None

    @rule(allocation=allocations, by=st.integers(0, 1))
    def release(self, allocation: Any, by: int) -> None:
        if allocation is not None:
            answer = self.ask(by, addresses.release_address, AllocationId=allocation[1])
            assert answer is None or by == allocation[0]

    @rule(interface=interfaces)
    def start(self, interface: Any) -> None:
        """As RunInstances and StartInstances do: an instance on it, with an address where the pool has one."""
        with self.database.write() as session:
            row = session.get(NetworkInterface, interface[1])
            if row is None:
                return
            if not row.instance:
                instance = Instance(
                    id=new_id("i"),
                    account=row.account,
                    region=REGION,
                    created=NOW,
                    reservation="r-1",
                    image="ami-1",
                    architecture="riscv64",
                    instance_type="t3.nano",
                    zone=row.zone,
                    vpc=row.vpc,
                    subnet=row.subnet,
                    interface=row.id,
                    root_device="/dev/sda1",
                    launched=NOW,
                    wanted="running",
                    state="running",
                    since=NOW,
                    memory=512,
                    vcpus=2,
                    metadata_options=MetadataOptions(),
                )
                session.add(instance)
                network_interfaces.attach(row, instance.id, 0, True, NOW)
            session.get_one(Instance, row.instance).state = "running"
            try:
                assign_public(session, row, POOL.public_pool)
            except AwsError as error:
                assert error.code == "InsufficientAddressCapacity"

    @rule(interface=interfaces)
    def stop(self, interface: Any) -> None:
        with self.database.write() as session:
            row = session.get(NetworkInterface, interface[1])
            if row is not None and row.instance:
                session.get_one(Instance, row.instance).state = "stopped"
                release_public(session, row)

    @rule(interface=consumes(interfaces))
    def end(self, interface: Any) -> None:
        with self.database.write() as session:
            network_interfaces.release(session, interface[1])

    @invariant()
    def an_address_has_one_holder_and_a_holder_one_address(self) -> None:
        with self.database.read() as session:
            elastic = session.scalars(select(ElasticAddress)).all()
            interfaces = {row.id: row for row in session.scalars(select(NetworkInterface))}
            own = {row.public_address: row.id for row in interfaces.values() if row.public_address}
            held = {row.address: row.holder for row in session.scalars(select(PublicAddress))}
            assert held == {row.address: row.id for row in elastic} | own
            assert len(held) == len(elastic) + len(own)
            associated = [row.interface for row in elastic if row.interface]
            assert len(set(associated)) == len(associated)
            for row in elastic:
                assert bool(row.interface) == bool(row.association)
                if row.interface:
                    interface = interfaces[row.interface]
                    assert interface.account == row.account
                    assert not interface.public_address
                    assert effective_address(session, interface) == row.address


TestAddresses = Addresses.TestCase
TestAddresses.settings = hypothesis_settings(max_examples=15, stateful_step_count=30, deadline=None)
