"""apache-libcloud's drivers of EC2 and S3, unchanged. What needs a guest is in tests/system/test_cloud_clients.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.served import REGION, Owner

pytest.importorskip("libcloud", reason="apache-libcloud is not installed (make clients)")

from libcloud.common.types import InvalidCredsError
from libcloud.compute.providers import get_driver as compute_driver
from libcloud.compute.types import Provider as Compute
from libcloud.storage.providers import get_driver as storage_driver
from libcloud.storage.types import Provider as Storage

MIB = 1 << 20


def driven(owner: Owner, **more: Any) -> Any:
    """libcloud's driver of EC2."""
    driver = compute_driver(Compute.EC2)
    return driver(
        owner.key, owner.secret, region=REGION, secure=False, host="127.0.0.1", port=owner.cloud.port, **more
    )


@pytest.fixture
def libcloud_ec2(owner: Owner) -> Any:
    return driven(owner, signature_version="4")


@pytest.fixture
def libcloud_s3(owner: Owner) -> Any:
    driver = storage_driver(Storage.S3)
    return driver(owner.key, owner.secret, region=REGION, secure=False, host="127.0.0.1", port=owner.cloud.port)


def test_signatures_of_version_2_are_refused_with_what_to_set(owner: Owner) -> None:
    with pytest.raises(InvalidCredsError, match="signature_version='4'"):
        driven(owner).list_nodes()


def test_sizes_locations_and_zones(libcloud_ec2: Any) -> None:
    sizes = {size.id: size for size in libcloud_ec2.list_sizes()}
    assert sizes["t3.micro"].ram == 1024
    assert {location.name for location in libcloud_ec2.list_locations()} == {"us-east-1a", "us-east-1b"}
    assert len(libcloud_ec2.ex_list_availability_zones()) == 2
    assert libcloud_ec2.ex_get_limits()["resource"]


def test_key_pairs(libcloud_ec2: Any, owner: Owner) -> None:
    made = libcloud_ec2.create_key_pair("made")
    assert made.private_key.startswith("-----BEGIN")
    [described] = owner.client().describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    libcloud_ec2.import_key_pair_from_string("given", described["PublicKey"])
    assert {pair.name for pair in libcloud_ec2.list_key_pairs()} == {"made", "given"}
    assert libcloud_ec2.get_key_pair("made").fingerprint == made.fingerprint
    libcloud_ec2.delete_key_pair(made)
    assert [pair.name for pair in libcloud_ec2.list_key_pairs()] == ["given"]


def test_security_groups_whose_lists_count_from_zero(libcloud_ec2: Any, owner: Owner) -> None:
    group = libcloud_ec2.ex_create_security_group("web", "for the web")["group_id"]
    libcloud_ec2.ex_authorize_security_group("web", 80, 80, "0.0.0.0/0")
    networks = ["10.0.0.0/8", "172.16.0.0/12"]
    libcloud_ec2.ex_authorize_security_group_ingress(group, 22, 23, cidr_ips=networks)
    libcloud_ec2.ex_authorize_security_group_ingress(group, 443, 443, group_pairs=[{"group_id": group}])
    libcloud_ec2.ex_revoke_security_group_ingress(group, 80, 80, cidr_ips=["0.0.0.0/0"])
    [described] = owner.client().describe_security_groups(GroupIds=[group])["SecurityGroups"]
    admitted = {
        (rule["FromPort"], network["CidrIp"]) for rule in described["IpPermissions"] for network in rule["IpRanges"]
    }
    assert admitted == {(22, network) for network in networks}
    assert [rule["FromPort"] for rule in described["IpPermissions"] if rule["UserIdGroupPairs"]] == [443]
    [told] = libcloud_ec2.ex_get_security_groups(group_ids=[group])
    assert told.name == "web"
    libcloud_ec2.ex_delete_security_group_by_id(group)
    assert "web" not in libcloud_ec2.ex_list_security_groups()


def test_volumes_and_snapshots(libcloud_ec2: Any, owner: Owner) -> None:
    zone = libcloud_ec2.list_locations()[0]
    volume = libcloud_ec2.create_volume(2, "data", location=zone, ex_volume_type="gp3")
    [listed] = libcloud_ec2.list_volumes()
    assert (listed.id, listed.size, listed.name, listed.extra["snapshot_id"]) == (volume.id, 2, "data", None)
    assert libcloud_ec2.ex_describe_volumes_modifications() == []
    libcloud_ec2.ex_create_tags(volume, {"stage": "test"})
    assert libcloud_ec2.ex_describe_tags(volume) == {"Name": "data", "stage": "test"}
    assert libcloud_ec2.destroy_volume(volume)
    assert owner.client().describe_volumes()["Volumes"][0]["State"] == "deleting"
    assert libcloud_ec2.list_snapshots(owner="self") == []


def test_elastic_addresses(libcloud_ec2: Any) -> None:
    address = libcloud_ec2.ex_allocate_address("vpc")
    [found] = libcloud_ec2.ex_describe_all_addresses()
    assert (found.ip, found.domain, found.instance_id) == (address.ip, "vpc", None)
    assert libcloud_ec2.ex_release_address(found, "vpc")
    assert libcloud_ec2.ex_describe_all_addresses() == []


def test_networks_with_subnets_gateways_and_routes(libcloud_ec2: Any, owner: Owner) -> None:
    network = libcloud_ec2.ex_create_network("10.30.0.0/16", "lab")
    subnet = libcloud_ec2.ex_create_subnet(network.id, "10.30.1.0/24", "us-east-1a", "first")
    assert libcloud_ec2.ex_modify_subnet_attribute(subnet, "auto_public_ip", True)
    gateway = libcloud_ec2.ex_create_internet_gateway("out")
    assert libcloud_ec2.ex_attach_internet_gateway(gateway, network)
    table = libcloud_ec2.ex_create_route_table(network, "routes")
    assert libcloud_ec2.ex_create_route(table, "0.0.0.0/0", internet_gateway=gateway)
    libcloud_ec2.ex_associate_route_table(table, subnet)
    [found] = libcloud_ec2.ex_list_route_tables(route_table_ids=[table.id])
    assert {route.cidr: route.gateway_id for route in found.routes} == {
        "10.30.0.0/16": "local",
        "0.0.0.0/0": gateway.id,
    }
    [association] = found.subnet_associations
    assert association.subnet_id == subnet.id
    interface = libcloud_ec2.ex_create_network_interface(subnet, "eth", "an interface")
    assert [each.id for each in libcloud_ec2.ex_list_network_interfaces()] == [interface.id]
    assert libcloud_ec2.ex_delete_network_interface(interface)
    assert libcloud_ec2.ex_dissociate_route_table(association)
    assert libcloud_ec2.ex_delete_route(table, "0.0.0.0/0")
    assert libcloud_ec2.ex_delete_route_table(table)
    assert libcloud_ec2.ex_detach_internet_gateway(gateway, network)
    assert libcloud_ec2.ex_delete_internet_gateway(gateway)
    assert libcloud_ec2.ex_delete_subnet(subnet)
    assert libcloud_ec2.ex_delete_network(network)
    assert [vpc["IsDefault"] for vpc in owner.client().describe_vpcs()["Vpcs"]] == [True]


def test_objects_large_and_small(libcloud_s3: Any, owner: Owner, tmp_path: Path) -> None:
    name = f"libcloud-{owner.account}"
    container = libcloud_s3.create_container(name)
    assert [each.name for each in libcloud_s3.list_containers()] == [name]
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 16)
    about = {"meta_data": {"colour": "red"}, "content_type": "text/x-test"}
    libcloud_s3.upload_object(str(file), container, "some/key with spaces", extra=about)

    def pieces() -> Iterator[bytes]:
        for number in range(6):
            yield bytes([number]) * 2 * MIB

    libcloud_s3.upload_object_via_stream(pieces(), container, "stream")
    assert [each.name for each in libcloud_s3.list_container_objects(container)] == ["some/key with spaces", "stream"]
    assert [each.name for each in libcloud_s3.list_container_objects(container, prefix="so")] == [
        "some/key with spaces"
    ]
    kept = libcloud_s3.get_object(name, "some/key with spaces")
    assert (kept.meta_data, kept.extra["content_type"], kept.size) == ({"colour": "red"}, "text/x-test", 4096)
    back = tmp_path / "back"
    assert libcloud_s3.download_object(kept, str(back))
    assert back.read_bytes() == file.read_bytes()
    stream = libcloud_s3.get_object(name, "stream")
    assert b"".join(libcloud_s3.download_object_as_stream(stream)) == b"".join(pieces())
    assert b"".join(libcloud_s3.download_object_range_as_stream(stream, MIB, 3 * MIB)) == bytes(MIB) + b"\x01" * MIB
    assert list(libcloud_s3.ex_iterate_multipart_uploads(container)) == []
    for each in (kept, stream):
        assert libcloud_s3.delete_object(each)
    assert libcloud_s3.delete_container(container)
    assert libcloud_s3.list_containers() == []
