"""One of everything that an account can have, for tests of who sees what."""

from __future__ import annotations

import json
from typing import Any

from celaje.cloud.ec2 import network_interfaces
from celaje.cloud.ec2.public_addresses import assign_public
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import Instance, MetadataOptions
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume
from tests.cloud.served import REGION, Owner, ServedCloud

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
)
PUBLIC_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def instance_with(cloud: ServedCloud, interface_id: str, state: str = "running") -> str:
    """An instance's row on an interface, as RunInstances leaves it."""
    with cloud.database.write() as session:
        row = session.get_one(NetworkInterface, interface_id)
        instance = Instance(
            id=new_id("i"),
            account=row.account,
            region=REGION,
            created=row.created,
            reservation=new_id("r"),
            image="ami-0123456789abcdef0",
            architecture="riscv64",
            instance_type="t3.micro",
            zone=row.zone,
            vpc=row.vpc,
            subnet=row.subnet,
            interface=row.id,
            root_device="/dev/sda1",
            launched=row.created,
            wanted="running",
            state=state,
            since=row.created,
            memory=1024,
            vcpus=2,
            metadata_options=MetadataOptions(),
        )
        session.add(instance)
        network_interfaces.attach(row, instance.id, 0, True, row.created)
        assign_public(session, row, cloud.settings.public_pool)
        return instance.id


def belongings(owner: Owner, name: str) -> dict[str, str]:
    """Identifiers of one of each kind, all made for `owner`; names and keys are made of `name`."""
    ec2, iam = owner.client("ec2"), owner.client("iam")
    found: dict[str, str] = {"account": owner.account, "key": owner.key}
    subnet = ec2.describe_subnets()["Subnets"][0]
    found["subnet"], found["vpc"] = subnet["SubnetId"], subnet["VpcId"]
    found["acl"] = ec2.describe_network_acls()["NetworkAcls"][0]["NetworkAclId"]
    found["rtb"] = ec2.describe_route_tables()["RouteTables"][0]["RouteTableId"]
    found["igw"] = ec2.describe_internet_gateways()["InternetGateways"][0]["InternetGatewayId"]
    found["dopt"] = ec2.describe_dhcp_options()["DhcpOptions"][0]["DhcpOptionsId"]
    found["sg"] = ec2.create_security_group(GroupName=name, Description="of a test")["GroupId"]
    found["group name"] = name
    rule = ec2.authorize_security_group_ingress(
        GroupId=found["sg"],
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}],
    )
    found["sgr"] = rule["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    interface = ec2.create_network_interface(SubnetId=found["subnet"], Groups=[found["sg"]])["NetworkInterface"]
    found["eni"], found["private address"] = interface["NetworkInterfaceId"], interface["PrivateIpAddress"]
    pair = ec2.import_key_pair(KeyName=name, PublicKeyMaterial=PUBLIC_KEY)
    found["key pair"], found["key name"] = pair["KeyPairId"], name
    address = ec2.allocate_address()
    found["eipalloc"], found["public address"] = address["AllocationId"], address["PublicIp"]
    found["eipassoc"] = ec2.associate_address(AllocationId=found["eipalloc"], NetworkInterfaceId=found["eni"])[
        "AssociationId"
    ]
    gateway = ec2.create_nat_gateway(SubnetId=found["subnet"], ConnectivityType="private")["NatGateway"]
    found["nat"] = gateway["NatGatewayId"]
    template = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "t3.nano"})
    found["lt"], found["lt name"] = template["LaunchTemplate"]["LaunchTemplateId"], name
    found |= _rows(owner, found["eni"], name)
    for kind in ("vpc", "i", "vol"):
        ec2.create_tags(Resources=[found[kind]], Tags=[{"Key": name, "Value": name}])
    found["role"] = iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)["Role"]["RoleName"]
    found["role arn"] = iam.get_role(RoleName=name)["Role"]["Arn"]
    profile = iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    found["profile"], found["profile arn"] = name, profile["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    found["user"] = iam.create_user(UserName=name)["User"]["UserName"]
    iam.add_user_to_group(GroupName=iam.create_group(GroupName=name)["Group"]["GroupName"], UserName=name)
    found["user key"] = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    found["policy arn"] = iam.create_policy(PolicyName=name, PolicyDocument=POLICY)["Policy"]["Arn"]
    found["policy"] = name
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=POLICY)
    return found


def _rows(owner: Owner, interface: str, name: str) -> dict[str, str]:
    """What controllers would have to finish: written as they leave it."""
    common: dict[str, Any] = {"account": owner.account, "region": REGION}
    with owner.cloud.database.write() as session:
        now = session.get_one(NetworkInterface, interface).created
        common["created"] = now
        volume = Volume(
            id=new_id("vol"),
            zone="us-east-1a",
            size=1,
            kind="gp3",
            iops=3000,
            throughput=125,
            state="available",
            made=True,
            **common,
        )
        snapshot = Snapshot(
            id=new_id("snap"),
            volume=volume.id,
            size=1,
            description=name,
            state="completed",
            progress=100,
            host_image="",
            public=False,
            **common,
        )
        image = Image(
            id=new_id("ami"),
            name=name,
            architecture="riscv64",
            state="available",
            public=False,
            host_image="",
            devices=[BlockDevice(device="/dev/sda1", snapshot=snapshot.id, size=1)],
            **common,
        )
        session.add_all([volume, snapshot, image])
        found = {"vol": volume.id, "snap": snapshot.id, "ami": image.id, "image name": name}
    return found | {"i": instance_with(owner.cloud, interface)}
