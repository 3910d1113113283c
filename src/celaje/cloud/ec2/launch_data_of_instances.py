"""GetLaunchTemplateData: the parameters with which an instance would be launched again."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.ec2.instance_descriptions import InstanceView, instance_of, views
from celaje.cloud.ec2.instance_lookup import find_live_instance
from celaje.cloud.state.tags import answered_tags
from celaje.cloud.state.volumes import Volume

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


@ACTIONS.action
def get_launch_template_data(call: Call, request: ec2.GetLaunchTemplateDataRequestTypeDef) -> Answer:
    """Of an instance of the caller's."""
    view = views(call.session, [find_live_instance(call, request["InstanceId"])])[0]
    row, shown = view.row, instance_of(view)
    return {
        "LaunchTemplateData": {
            "BlockDeviceMappings": _devices(call, view),
            "CapacityReservationSpecification": shown["CapacityReservationSpecification"],
            "CpuOptions": shown["CpuOptions"],
            "CreditSpecification": {"CpuCredits": row.credits} if row.credits else None,
            "DisableApiStop": row.stop_protected,
            "DisableApiTermination": row.protected,
            "EbsOptimized": row.ebs_optimized,
            "EnclaveOptions": {"Enabled": False},
            "HibernationOptions": {"Configured": False},
            "IamInstanceProfile": {"Arn": row.profile} if row.profile else None,
            "ImageId": row.image,
            "InstanceInitiatedShutdownBehavior": row.shutdown_behaviour,
            "InstanceType": row.instance_type,
            "KeyName": row.key_name or None,
            "MaintenanceOptions": {"AutoRecovery": row.auto_recovery},
            "MetadataOptions": {
                "HttpEndpoint": row.metadata_options.http_endpoint,
                "HttpProtocolIpv6": row.metadata_options.http_protocol_ipv6,
                "HttpPutResponseHopLimit": row.metadata_options.http_put_response_hop_limit,
                "HttpTokens": row.metadata_options.http_tokens,
                "InstanceMetadataTags": row.metadata_options.instance_metadata_tags,
            },
            "Monitoring": {"Enabled": row.monitoring},
            "NetworkInterfaces": _interfaces(view),
            "Placement": {"AvailabilityZone": row.zone, "GroupName": "", "Tenancy": "default"},
            "PrivateDnsNameOptions": shown["PrivateDnsNameOptions"],
            "TagSpecifications": _tags(view),
            "UserData": base64.b64encode(row.user_data).decode("ascii") if row.user_data is not None else None,
        }
    }


def _devices(call: Call, view: InstanceView) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for one in view.volumes:
        volume = call.session.get_one(Volume, one.volume)
        disk = {
            "DeleteOnTermination": one.delete_on_termination,
            "Encrypted": False,
            "Iops": volume.iops if volume.kind != "gp2" else None,
            "SnapshotId": volume.snapshot or None,
            "Throughput": volume.throughput,
            "VolumeSize": volume.size,
            "VolumeType": volume.kind,
        }
        found.append({"DeviceName": one.device, "Ebs": disk})
    return found


def _interfaces(view: InstanceView) -> list[dict[str, object]]:
    return [
        {
            "AssociatePublicIpAddress": interface.wants_public,
            "DeleteOnTermination": interface.delete_on_termination,
            "Description": interface.description,
            "DeviceIndex": interface.device_index,
            "Groups": [group["GroupId"] for group in description.groups],
            "SubnetId": interface.subnet,
        }
        for interface, description in view.interfaces
    ]


def _tags(view: InstanceView) -> list[dict[str, object]]:
    own = {key: value for key, value in view.tags.items() if not key.startswith("aws:")}
    return [{"ResourceType": "instance", "Tags": answered_tags(own)}] if own else []
