"""How many of a kind an account may have."""

from __future__ import annotations

import base64

import pytest

from celaje.cloud.ec2 import quotas, security_groups
from celaje.cloud.state.volumes import Volume
from tests.cloud.ec2.test_instances import AMI, _images
from tests.cloud.ec2.test_key_pairs import ED25519
from tests.cloud.served import REGION, refusal

__all__ = ["_images"]


def test_an_account_that_makes_things_in_a_loop_is_stopped_and_others_are_not(ec2, served_cloud, monkeypatch):
    for name in ("VOLUMES", "KEY_PAIRS", "NETWORK_INTERFACES"):
        monkeypatch.setattr(quotas, name, 1)
    [subnet, *_] = ec2.describe_subnets()["Subnets"]
    zone = f"{REGION}a"
    for client in (ec2, served_cloud.owner().client()):
        client.create_volume(AvailabilityZone=zone, Size=1)
        client.import_key_pair(KeyName="one", PublicKeyMaterial=b"ssh-ed25519 " + base64.b64encode(ED25519))
    ec2.create_network_interface(SubnetId=subnet["SubnetId"])
    code, message = refusal(ec2.create_volume, AvailabilityZone=zone, Size=1)
    assert code == "VolumeLimitExceeded"
    assert "delete some first" in message
    assert refusal(ec2.create_key_pair, KeyName="two", KeyType="ed25519")[0] == "ResourceLimitExceeded"
    code, _ = refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"])
    assert code == "NetworkInterfaceLimitExceeded"
    launch = {"ImageId": AMI, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"}
    assert refusal(ec2.run_instances, **launch)[0] == "NetworkInterfaceLimitExceeded"
    monkeypatch.setattr(quotas, "NETWORK_INTERFACES", 2)
    assert refusal(ec2.run_instances, **launch)[0] == "VolumeLimitExceeded"
    assert ec2.describe_instances()["Reservations"] == []


def test_an_account_has_so_many_images(ec2, monkeypatch):
    monkeypatch.setattr(quotas, "IMAGES", 0)
    mapping = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}
    code, message = refusal(
        ec2.register_image, Name="one more", RootDeviceName="/dev/sda1", BlockDeviceMappings=[mapping]
    )
    assert code == "ResourceLimitExceeded"
    assert "0 images" in message


LIMITS = {
    "VPCs": ("VPCS", "VpcLimitExceeded"),
    "subnets": ("SUBNETS_PER_VPC", "SubnetLimitExceeded"),
    "internet gateways": ("INTERNET_GATEWAYS", "InternetGatewayLimitExceeded"),
    "NAT gateways": ("NAT_GATEWAYS_PER_ZONE", "NatGatewayLimitExceeded"),
    "route tables": ("ROUTE_TABLES_PER_VPC", "RouteTableLimitExceeded"),
    "routes": ("ROUTES", "RouteLimitExceeded"),
    "access lists": ("NETWORK_ACLS_PER_VPC", "NetworkAclLimitExceeded"),
    "access lists' entries": ("NETWORK_ACL_ENTRIES", "NetworkAclEntryLimitExceeded"),
    "DHCP options": ("DHCP_OPTIONS", "ResourceLimitExceeded"),
    "snapshots": ("SNAPSHOTS", "SnapshotLimitExceeded"),
    "launch templates": ("LAUNCH_TEMPLATES", "ResourceLimitExceeded"),
    "versions of a template": ("LAUNCH_TEMPLATE_VERSIONS", "VersionLimitExceeded"),
}


@pytest.mark.parametrize(("most", "code"), LIMITS.values(), ids=list(LIMITS))
def test_what_is_beyond_a_limit_is_refused_with_awss_code_and_not_made(ec2, served_cloud, monkeypatch, most, code):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    volume = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    with served_cloud.database.write() as session:
        session.get_one(Volume, volume).state = "available"
    template = ec2.create_launch_template(LaunchTemplateName="own", LaunchTemplateData={"KeyName": "key"})
    entry = {"Protocol": "-1", "RuleAction": "allow", "Egress": False, "CidrBlock": "0.0.0.0/0"}
    version = {
        "LaunchTemplateId": template["LaunchTemplate"]["LaunchTemplateId"],
        "LaunchTemplateData": {"KeyName": "other"},
    }
    actions = {
        "VPCS": (ec2.create_vpc, {"CidrBlock": "10.9.0.0/16"}),
        "SUBNETS_PER_VPC": (ec2.create_subnet, {"VpcId": vpc, "CidrBlock": "10.0.9.0/24"}),
        "INTERNET_GATEWAYS": (ec2.create_internet_gateway, {}),
        "NAT_GATEWAYS_PER_ZONE": (ec2.create_nat_gateway, {"SubnetId": subnet, "ConnectivityType": "private"}),
        "ROUTE_TABLES_PER_VPC": (ec2.create_route_table, {"VpcId": vpc}),
        "ROUTES": (
            ec2.create_route,
            {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "NetworkInterfaceId": interface},
        ),
        "NETWORK_ACLS_PER_VPC": (ec2.create_network_acl, {"VpcId": vpc}),
        "NETWORK_ACL_ENTRIES": (ec2.create_network_acl_entry, {"NetworkAclId": acl, "RuleNumber": 1, **entry}),
        "DHCP_OPTIONS": (
            ec2.create_dhcp_options,
            {"DhcpConfigurations": [{"Key": "domain-name", "Values": ["example.org"]}]},
        ),
        "SNAPSHOTS": (ec2.create_snapshot, {"VolumeId": volume}),
        "LAUNCH_TEMPLATES": (
            ec2.create_launch_template,
            {"LaunchTemplateName": "another", "LaunchTemplateData": {"KeyName": "key"}},
        ),
        "LAUNCH_TEMPLATE_VERSIONS": (ec2.create_launch_template_version, version),
    }
    action, request = actions[most]
    before = everything(ec2)
    with monkeypatch.context() as patch:
        patch.setattr(quotas, most, 0)
        assert refusal(action, **request)[0] == code
    assert everything(ec2) == before
    action(**request)  # and it was nothing else


def test_a_vpc_has_so_many_groups_and_a_request_so_many_instances(ec2, monkeypatch):
    monkeypatch.setattr(security_groups, "GROUPS_PER_VPC", 1)
    group = {"GroupName": "one more", "Description": "of a test"}
    assert refusal(ec2.create_security_group, **group)[0] == "SecurityGroupLimitExceeded"
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 1
    launch = {"ImageId": AMI, "MinCount": 1001, "MaxCount": 1001, "InstanceType": "t3.nano"}
    assert refusal(ec2.run_instances, **launch)[0] == "InstanceLimitExceeded"


def everything(ec2) -> list[object]:
    """What an account has, without the time of each answer."""
    lists = (
        *("vpcs", "subnets", "internet_gateways", "nat_gateways", "route_tables", "network_acls", "dhcp_options"),
        *("snapshots", "launch_templates", "network_interfaces"),
    )
    answers = [getattr(ec2, f"describe_{name}")() for name in lists]
    return [{name: value for name, value in each.items() if name != "ResponseMetadata"} for each in answers]
