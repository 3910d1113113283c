"""What an instance is told about itself at 169.254.169.254: the leaves that only the cloud knows.

The network adds what it knows itself (address, MAC) and serves them; which leaves there are is from the EC2 User Guide,
"Instance metadata categories". cloud-init reads every leaf that a directory lists, so none may be missing.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from celaje.cloud.ec2.network_interfaces import Described
from celaje.cloud.iam.credentials import RoleCredentials
from celaje.cloud.reconcile.identity_documents import Signer, identity_document
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.networks import NetworkInterface, Subnet, Vpc
from celaje.cloud.state.volumes import VolumeAttachment
from celaje.cloud.state.zones import zone_id
from celaje.network.messages import MetadataFacts

# Keys that a path can have; EC2 refuses others where instance tags in metadata are enabled.
_TAG_KEY = re.compile(r"(?!\.{1,2}\Z|_index\Z)[A-Za-z0-9+\-=.,_:@]+")


@dataclass(frozen=True, slots=True)
class HeldCredentials:
    """Those of an instance's role. `profile` and `profile_id` are the instance profile's ARN and id."""

    role: str
    profile: str
    profile_id: str
    keys: RoleCredentials
    issued: datetime.datetime


@dataclass(frozen=True, slots=True)
class MetadataMaterial:
    """What facts are made of beside the instance and its interface, by the instance's id; `signers` by region."""

    signers: Mapping[str, Signer]
    volumes: Mapping[str, list[VolumeAttachment]] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    credentials: Mapping[str, HeldCredentials] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plugged:
    """An interface of an instance, and where it is."""

    interface: NetworkInterface
    description: Described
    vpc: Vpc
    subnet: Subnet


def metadata_facts(instance: Instance, plugged: Sequence[Plugged], material: MetadataMaterial) -> MetadataFacts:
    """Everything that the instance is told; `plugged` are its interfaces, the first one first."""
    interface, description = plugged[0].interface, plugged[0].description
    document = identity_document(
        account=instance.account,
        architecture=instance.architecture,
        zone=instance.zone,
        image=instance.image,
        instance=instance.id,
        instance_type=instance.instance_type,
        launched=instance.launched,
        private_address=interface.private_address,
        region=instance.region,
    )
    leaves = {
        "ami-id": instance.image,
        "ami-launch-index": str(instance.launch_index),
        "ami-manifest-path": "(unknown)",
        "hostname": description.private_name,
        "instance-type": instance.instance_type,
        "local-hostname": description.private_name,
        "placement/availability-zone": instance.zone,
        "placement/availability-zone-id": zone_id(instance.region, instance.zone),
        "placement/region": instance.region,
        "profile": "default-hvm",
        "reservation-id": instance.reservation,
        "security-groups": "\n".join(group["GroupName"] for group in description.groups),
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
        "system": "nitro",
        "dynamic/fws/instance-monitoring": "enabled" if instance.monitoring else "disabled",
        **_devices(instance, material),
        "local-ipv4": interface.private_address,
        "mac": interface.mac,
        **{name: value for one in plugged for name, value in _interface(one).items()},
        **material.signers[instance.region].leaves(document),
    }
    if description.public_name:
        leaves["public-hostname"] = description.public_name
    if description.public_address:
        leaves["public-ipv4"] = description.public_address
    if (credentials := material.credentials.get(instance.id)) is not None:
        leaves |= _credentials(credentials)
    if instance.metadata_options.instance_metadata_tags == "enabled":
        tags = material.tags.get(instance.id, {})
        leaves |= {f"tags/instance/{key}": value for key, value in tags.items() if _TAG_KEY.fullmatch(key)}
    return MetadataFacts(
        instance_id=instance.id,
        host_name=description.private_name,
        public_keys={instance.key_name: instance.key_line} if instance.key_line else {},
        user_data=instance.user_data,
        extra=leaves,
        tokens_required=instance.metadata_options.http_tokens == "required",
        enabled=instance.metadata_options.http_endpoint == "enabled",
        hop_limit=instance.metadata_options.http_put_response_hop_limit,
    )


def _devices(instance: Instance, material: MetadataMaterial) -> dict[str, str]:
    """ami is the root device's name, ebs1 … the other volumes'. Disks of the instance store are left out, as EC2 leaves
    those on NVMe out."""
    volumes = [one.device for one in material.volumes.get(instance.id, []) if not one.is_root]
    names = {"ami": instance.root_device, "root": instance.root_device}
    names |= {f"ebs{at}": device.removeprefix("/dev/") for at, device in enumerate(volumes, 1)}
    return {f"block-device-mapping/{name}": device for name, device in names.items()}


def _interface(plugged: Plugged) -> dict[str, str]:
    interface, description, vpc, subnet = plugged.interface, plugged.description, plugged.vpc, plugged.subnet
    addresses = [(interface.private_address, description.public_address), *description.secondary]
    leaves = {
        "device-number": str(interface.device_index),
        "interface-id": interface.id,
        "local-hostname": description.private_name,
        "local-ipv4s": "\n".join(private for private, _ in addresses),
        "mac": interface.mac,
        "owner-id": interface.account,
        "security-group-ids": "\n".join(group["GroupId"] for group in description.groups),
        "security-groups": "\n".join(group["GroupName"] for group in description.groups),
        "subnet-id": subnet.id,
        "subnet-ipv4-cidr-block": subnet.cidr,
        "vpc-id": vpc.id,
        "vpc-ipv4-cidr-block": vpc.cidr,
        "vpc-ipv4-cidr-blocks": vpc.cidr,
    }
    if description.public_name:
        leaves["public-hostname"] = description.public_name
    associated = [(private, public) for private, public in addresses if public]
    if associated:
        leaves["public-ipv4s"] = "\n".join(public for _, public in associated)
        leaves |= {f"ipv4-associations/{public}": private for private, public in associated}
    return {f"network/interfaces/macs/{interface.mac}/{name}": value for name, value in leaves.items()}


def _credentials(held: HeldCredentials) -> dict[str, str]:
    issued = f"{held.issued:%Y-%m-%dT%H:%M:%SZ}"
    info = {
        "Code": "Success",
        "LastUpdated": issued,
        "InstanceProfileArn": held.profile,
        "InstanceProfileId": held.profile_id,
    }
    keys = {
        "Code": "Success",
        "LastUpdated": issued,
        "Type": "AWS-HMAC",
        "AccessKeyId": held.keys.access_key,
        "SecretAccessKey": held.keys.secret,
        "Token": held.keys.token,
        "Expiration": f"{held.keys.expiration:%Y-%m-%dT%H:%M:%SZ}",
    }
    return {
        "iam/info": json.dumps(info, indent=2),
        f"iam/security-credentials/{held.role}": json.dumps(keys, indent=2),
    }
