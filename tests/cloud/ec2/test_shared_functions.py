"""What instances are built on: default VPCs, addresses of subnets and of the pool, groups, credentials of roles."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import network_interfaces, private_addresses, public_addresses
from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.security_groups import NetworkRule, checked_groups, default_group, network_groups
from celaje.cloud.ec2.vpcs import default_vpc
from celaje.cloud.iam.accounts import ensure_first_state, open_account, root_account
from celaje.cloud.iam.credentials import find_signer, role_credentials
from celaje.cloud.settings import Settings
from celaje.cloud.state.addresses import PublicAddress
from celaje.cloud.state.database import Database
from celaje.cloud.state.networks import InternetGateway, NetworkAcl, NetworkInterface, RouteTable, Subnet, Vpc
from celaje.cloud.state.roles import Role, new_unique_id
from celaje.cloud.state.zones import zone_id

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 123456, datetime.UTC)
REGION = "us-east-1"
SMALL_POOL = "127.64.0.0/29"


@pytest.fixture
def database(tmp_path: Path):
    database = Database(tmp_path / "state.sqlite3")
    database.prepare()
    with database.write() as session:
        ensure_first_state(session, Settings(), NOW)
    yield database
    database.close()


def subnets(session) -> list[Subnet]:
    account = root_account(session).id
    of_region = select(Subnet).where(Subnet.account == account, Subnet.region == REGION)
    return list(session.scalars(of_region.order_by(Subnet.zone)))


def interface(session, subnet: Subnet, address: str | None = None) -> NetworkInterface:
    return network_interfaces.allocate(
        session,
        account=subnet.account,
        region=subnet.region,
        subnet=subnet,
        groups=[default_group(session, subnet.vpc).id],
        private_address=address,
        description="",
        now=NOW,
    )


def test_an_account_has_a_default_vpc_in_every_region_with_a_subnet_a_zone(database: Database) -> None:
    with database.read() as session:
        account = root_account(session).id
        vpcs = session.scalars(select(Vpc)).all()
        assert {(vpc.account, vpc.region, vpc.cidr) for vpc in vpcs} == {
            (account, "us-east-1", "172.31.0.0/16"),
            (account, "eu-west-1", "172.31.0.0/16"),
        }
        assert [(one.zone, one.cidr) for one in subnets(session)] == [
            ("us-east-1a", "172.31.0.0/20"),
            ("us-east-1b", "172.31.16.0/20"),
        ]
        vpc = default_vpc(session, account, REGION)
        assert vpc is not None
        for table in (InternetGateway, NetworkAcl, RouteTable):
            assert session.scalar(select(func.count()).select_from(table).where(table.vpc == vpc.id)) == 1


def test_a_second_start_makes_nothing_a_second_time(database: Database) -> None:
    with database.write() as session:
        ensure_first_state(session, Settings(), NOW)
        assert len(session.scalars(select(Vpc)).all()) == 2


def test_a_region_that_the_settings_have_later_gets_default_vpcs_at_the_next_start(database: Database) -> None:
    settings = Settings(regions={**Settings().regions, "ap-southeast-2": ("a", "b", "c")})
    with database.write() as session:
        ensure_first_state(session, settings, NOW)
        vpc = default_vpc(session, root_account(session).id, "ap-southeast-2")
        assert vpc is not None
        assert len(session.scalars(select(Subnet).where(Subnet.vpc == vpc.id)).all()) == 3


def test_zone_ids_are_those_of_aws() -> None:
    assert zone_id("us-east-1", "us-east-1b") == "use1-az2"
    assert zone_id("ap-southeast-2", "ap-southeast-2a") == "apse2-az1"
    assert zone_id("us-gov-west-1", "us-gov-west-1a") == "usgovw1-az1"


def test_interfaces_have_addresses_of_their_subnet_that_nobody_else_has(database: Database) -> None:
    with database.write() as session:
        subnet = subnets(session)[1]
        made = [interface(session, subnet) for _ in range(50)]
        assert len({one.private_address for one in made}) == 50
        assert len({one.mac for one in made}) == 50
        assert all(one.private_address.startswith("172.31.") for one in made)
        assert private_addresses.free_addresses(session, [subnet]) == {subnet.id: 4091 - 50}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("172.31.0.77", "InvalidIPAddress.InUse"),
        ("172.31.0.1", "InvalidParameterValue"),
        ("172.31.15.255", "InvalidParameterValue"),
        ("172.31.16.9", "InvalidParameterValue"),
        ("172.31.0.077", "InvalidParameterValue"),
    ],
)
def test_an_address_that_the_subnet_cannot_give_is_refused(database: Database, address: str, code: str) -> None:
    with database.write() as session:
        subnet = subnets(session)[0]
        interface(session, subnet, "172.31.0.77")
        with pytest.raises(AwsError) as refusal:
            interface(session, subnet, address)
        assert refusal.value.code == code


def test_a_full_subnet_says_so_and_a_released_address_is_free_again(database: Database) -> None:
    with database.write() as session:
        subnet = subnets(session)[0]
        subnet.cidr = "172.31.0.0/28"
        made = [interface(session, subnet) for _ in range(11)]
        with pytest.raises(AwsError) as refusal:
            interface(session, subnet)
        assert refusal.value.code == "InsufficientFreeAddressesInSubnet"
        network_interfaces.release(session, made[4].id)
        assert interface(session, subnet).private_address == made[4].private_address


def test_no_public_address_is_given_twice_and_an_empty_pool_says_so(database: Database) -> None:
    with database.write() as session:
        made = [interface(session, subnets(session)[0]) for _ in range(7)]
        for one in made[:6]:
            public_addresses.assign_public(session, one, SMALL_POOL)
            public_addresses.assign_public(session, one, SMALL_POOL)
        assert len({one.public_address for one in made[:6]}) == 6
        with pytest.raises(AwsError) as refusal:
            public_addresses.assign_public(session, made[6], SMALL_POOL)
        assert refusal.value.code == "InsufficientAddressCapacity"
        given = made[2].public_address
        public_addresses.release_public(session, made[2])
        assert made[2].wants_public
        public_addresses.assign_public(session, made[6], SMALL_POOL)
        assert made[6].public_address == given
        network_interfaces.release(session, made[6].id)
        assert session.get(PublicAddress, given) is None


def test_the_default_group_admits_its_members_and_lets_everything_out(database: Database) -> None:
    with database.read() as session:
        group = default_group(session, subnets(session)[0].vpc)
        admitted = network_groups(session, [group.id])[group.id]
        assert set(admitted.rules) == {
            NetworkRule("in", "any", f"group:{group.id}"),
            NetworkRule("out", "any", "0.0.0.0/0"),
        }
        assert admitted.mentioned == {group.id}


def test_groups_are_those_of_the_account_and_of_the_vpc(database: Database) -> None:
    with database.write() as session:
        vpc = subnets(session)[0].vpc
        account = root_account(session).id
        mine = default_group(session, vpc).id
        other, _ = open_account(session, "other", Settings(), NOW)
        theirs = default_vpc(session, other.id, REGION)
        assert theirs is not None
        assert checked_groups(session, account, REGION, vpc) == [mine]
        assert checked_groups(session, account, REGION, vpc, [mine], ["default"]) == [mine]
        foreign = default_group(session, theirs.id).id
        messages = set()
        for named in (foreign, "sg-0123456789abcdef0"):
            with pytest.raises(AwsError) as refusal:
                checked_groups(session, account, REGION, vpc, [named])
            messages.add(str(refusal.value).replace(named, "…"))
        assert messages == {"InvalidGroup.NotFound: The security group '…' does not exist"}


def test_descriptions_say_what_an_interface_has(database: Database) -> None:
    with database.write() as session:
        one = interface(session, subnets(session)[0], "172.31.4.5")
        public_addresses.assign_public(session, one, Settings().public_pool)
        network_interfaces.attach(one, "i-0123456789abcdef0", 0, True, NOW)
        found = network_interfaces.described(session, [one])[one.id]
        assert found.private_name == "ip-172-31-4-5.ec2.internal"
        assert found.public_address == one.public_address
        assert found.groups == [{"GroupId": default_group(session, one.vpc).id, "GroupName": "default"}]
        assert found.network_interface["AvailabilityZoneId"] == "use1-az1"
        assert network_interfaces.of_instances(session, [one.instance]) == {one.instance: [one]}


def test_types_have_the_shapes_of_aws() -> None:
    shapes = {
        "t3.micro": (2, 1024, 2, 2),
        "t3.medium": (2, 4096, 3, 6),
        "m5.large": (2, 8192, 3, 10),
        "c6g.medium": (1, 2048, 2, 4),
        "g4dn.xlarge": (4, 16384, 3, 10),
    }
    for name, shape in shapes.items():
        kind = TYPES[name]
        assert (kind.vcpus, kind.memory_mib, kind.interfaces, kind.addresses_per_interface) == shape
    gpu = TYPES["g4dn.xlarge"].gpu
    assert gpu is not None
    assert (gpu.count, gpu.model, gpu.memory_mib) == (1, "T4", 16384)
    assert TYPES["m5d.large"].store_gb == (75,)
    assert TYPES["t3.micro"].network_performance == "Up to 5 Gigabit"


def test_credentials_of_a_role_sign_until_the_role_is_gone_and_cannot_be_altered(database: Database) -> None:
    with database.write() as session:
        account = root_account(session).id
        role = Role(
            id=new_unique_id("AROA"), account=account, name="Web", folded="web", created=NOW, trust="{}"
        )
        session.add(role)
        session.flush()
        made = role_credentials(session, role, NOW, datetime.timedelta(hours=1), "i-1")
        signer = find_signer(session, made.access_key, made.token)
        assert signer is not None
        assert (signer.secret, signer.expiration) == (made.secret, made.expiration)
        assert signer.caller.arn == f"arn:aws:sts::{account}:assumed-role/Web/i-1"
        assert signer.caller.user_id == f"{role.id}:i-1"
        other = role_credentials(session, role, NOW, datetime.timedelta(hours=1), "i-2")
        assert find_signer(session, other.access_key, made.token) is None
        assert find_signer(session, made.access_key) is None
        for broken in (made.token[:-8], "A" * 80, "not base64", made.token.swapcase()):
            assert find_signer(session, made.access_key, broken) is None
        session.delete(role)
        session.flush()
        assert find_signer(session, made.access_key, made.token) is None
