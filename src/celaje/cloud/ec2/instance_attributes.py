"""Attributes of instances, one at a time: described, modified, reset."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.instance_descriptions import InstanceView, views
from celaje.cloud.ec2.instance_launch import checked_behaviour, checked_type
from celaje.cloud.ec2.instance_lookup import NETWORKS, find_instance, find_instances, find_live_instance
from celaje.cloud.ec2.interface_attachments import fit_into
from celaje.cloud.ec2.launch_refusals import refuse_other_names
from celaje.cloud.ec2.network_interfaces import of_instances, set_groups
from celaje.cloud.ec2.security_groups import checked_groups
from celaje.cloud.ec2.user_data import checked_user_data, decoded_user_data
from celaje.cloud.state.instances import STOPPED, Instance
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.volumes import VolumeAttachment

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


def _devices(view: InstanceView) -> list[dict[str, object]]:
    return [
        {
            "DeviceName": one.device,
            "Ebs": {
                "AttachTime": one.since,
                "DeleteOnTermination": one.delete_on_termination,
                "Status": one.state,
                "VolumeId": one.volume,
            },
        }
        for one in view.volumes
    ]


def _user_data(view: InstanceView) -> dict[str, object]:
    data = view.row.user_data
    return {"Value": base64.b64encode(data).decode("ascii")} if data is not None else {}


_ATTRIBUTES: dict[str, tuple[str, Callable[[InstanceView], object]]] = {
    "blockDeviceMapping": ("BlockDeviceMappings", _devices),
    "disableApiStop": ("DisableApiStop", lambda view: {"Value": view.row.stop_protected}),
    "disableApiTermination": ("DisableApiTermination", lambda view: {"Value": view.row.protected}),
    "ebsOptimized": ("EbsOptimized", lambda view: {"Value": view.row.ebs_optimized}),
    "enaSupport": ("EnaSupport", lambda view: {"Value": view.row.ena_support}),
    "enclaveOptions": ("EnclaveOptions", lambda view: {"Enabled": False}),
    "groupSet": ("Groups", lambda view: view.primary.groups if view.primary else []),
    "instanceInitiatedShutdownBehavior": (
        "InstanceInitiatedShutdownBehavior",
        lambda view: {"Value": view.row.shutdown_behaviour},
    ),
    "instanceType": ("InstanceType", lambda view: {"Value": view.row.instance_type}),
    "kernel": ("KernelId", lambda view: {}),
    "productCodes": ("ProductCodes", lambda view: []),
    "ramdisk": ("RamdiskId", lambda view: {}),
    "rootDeviceName": ("RootDeviceName", lambda view: {"Value": view.row.root_device}),
    "sourceDestCheck": (
        "SourceDestCheck",
        lambda view: {"Value": view.interfaces[0][0].source_dest_check} if view.interfaces else {},
    ),
    "sriovNetSupport": ("SriovNetSupport", lambda view: {}),
    "userData": ("UserData", _user_data),
}


@ACTIONS.action
def describe_instance_attribute(call: Call, request: ec2.DescribeInstanceAttributeRequestTypeDef) -> Answer:
    """One attribute."""
    known = _ATTRIBUTES.get(request["Attribute"])
    if known is None:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({request['Attribute'][:64]}) for parameter attribute is invalid. Unknown attribute.",
        )
    view = views(call.session, [find_instance(call, request["InstanceId"])])[0]
    member, value = known
    return {"InstanceId": view.row.id, member: value(view)}


# Modifying. Each takes the member's value as the request has it.


def _require_stopped(instance: Instance, attribute: str) -> None:
    if instance.state != STOPPED:
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in the 'stopped' state, in which its {attribute} can be modified.",
        )


def _boolean(value: Any) -> bool:
    found = value.get("Value") if isinstance(value, Mapping) else value
    if isinstance(found, str):
        if found not in ("true", "false"):
            raise AwsError("InvalidParameterValue", f"Value ({found[:64]}) is invalid. It must be true or false.")
        return found == "true"
    if found is None:
        raise AwsError("MissingParameter", "The request must contain the parameter Value")
    return bool(found)


def _text(value: Any) -> str:
    found = value.get("Value") if isinstance(value, Mapping) else value
    if not found:
        raise AwsError("MissingParameter", "The request must contain the parameter Value")
    return str(found)


def _set_type(call: Call, instance: Instance, value: Any) -> None:
    _require_stopped(instance, "instance type")
    kind = checked_type(_text(value))
    fit_into(call, instance, kind.name)
    instance.instance_type, instance.memory, instance.vcpus = kind.name, kind.memory_mib, kind.vcpus
    instance.credits = (instance.credits or "unlimited") if kind.burstable else ""


def _set_user_data(call: Call, instance: Instance, value: Any) -> None:
    _require_stopped(instance, "user data")
    found = value.get("Value") if isinstance(value, Mapping) else value
    if isinstance(found, bytes):
        instance.user_data = checked_user_data(found) or None
    else:
        instance.user_data = decoded_user_data(found)
    call.wake(NETWORKS)


def _set_protected(call: Call, instance: Instance, value: Any) -> None:
    instance.protected = _boolean(value)


def _set_stop_protected(call: Call, instance: Instance, value: Any) -> None:
    instance.stop_protected = _boolean(value)


def _set_behaviour(call: Call, instance: Instance, value: Any) -> None:
    instance.shutdown_behaviour = checked_behaviour(_text(value))


def _set_ebs_optimized(call: Call, instance: Instance, value: Any) -> None:
    _require_stopped(instance, "EBS optimization")
    instance.ebs_optimized = _boolean(value)


def _set_ena(call: Call, instance: Instance, value: Any) -> None:
    _require_stopped(instance, "ENA support")
    instance.ena_support = _boolean(value)


def _set_source_check(call: Call, instance: Instance, value: Any) -> None:
    _interface(call, instance).source_dest_check = _boolean(value)
    call.wake(NETWORKS)


def _set_groups(call: Call, instance: Instance, value: Any) -> None:
    if not value or not isinstance(value, list):
        raise AwsError("InvalidParameterValue", "An interface must be in one security group at least: give GroupId")
    interface = _interface(call, instance)
    ids = checked_groups(call.session, call.account, call.region, interface.vpc, value)
    set_groups(call.session, interface.id, ids)
    call.wake(NETWORKS)


def _interface(call: Call, instance: Instance) -> NetworkInterface:
    """The instance's only one. AwsError InvalidInstanceID where it has several: which is meant must be said."""
    if len(of_instances(call.session, [instance.id])[instance.id]) > 1:
        raise AwsError(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance.id}'. Please specify an interface ID for "
            "the operation instead.",
        )
    return call.session.get_one(NetworkInterface, instance.interface)


def _set_devices(call: Call, instance: Instance, value: Any) -> None:
    if not isinstance(value, list):
        raise AwsError("MissingParameter", "The request must contain the parameter blockDeviceMapping")
    rows = select(VolumeAttachment).where(VolumeAttachment.instance == instance.id)
    attachments = {one.device: one for one in call.session.scalars(rows)}
    for mapping in value:
        device, asked = mapping.get("DeviceName"), mapping.get("Ebs") or {}
        attachment = attachments.get(device)
        if attachment is None or asked.get("VolumeId") not in (None, attachment.volume):
            raise AwsError(
                "InvalidInstanceAttributeValue", f"No device is currently mapped at {str(device)[:64]} of {instance.id}"
            )
        if asked.get("DeleteOnTermination") is not None:
            attachment.delete_on_termination = bool(asked["DeleteOnTermination"])


_MODIFIED: dict[str, tuple[str, Callable[[Call, Instance, Any], None]]] = {
    "BlockDeviceMappings": ("blockDeviceMapping", _set_devices),
    "DisableApiStop": ("disableApiStop", _set_stop_protected),
    "DisableApiTermination": ("disableApiTermination", _set_protected),
    "EbsOptimized": ("ebsOptimized", _set_ebs_optimized),
    "EnaSupport": ("enaSupport", _set_ena),
    "Groups": ("groupSet", _set_groups),
    "InstanceInitiatedShutdownBehavior": ("instanceInitiatedShutdownBehavior", _set_behaviour),
    "InstanceType": ("instanceType", _set_type),
    "SourceDestCheck": ("sourceDestCheck", _set_source_check),
    "UserData": ("userData", _set_user_data),
}
_BY_ATTRIBUTE = dict(_MODIFIED.values())


@ACTIONS.action
def modify_instance_attribute(call: Call, request: ec2.ModifyInstanceAttributeRequestTypeDef) -> Answer:
    """One attribute, said by its own member or by Attribute and Value."""
    instance = find_live_instance(call, request["InstanceId"])
    given: Mapping[str, Any] = request
    members = [member for member in _MODIFIED if given.get(member) is not None]
    attribute = given.get("Attribute")
    refused = [member for member in ("Kernel", "Ramdisk", "SriovNetSupport") if given.get(member) is not None]
    if refused or (attribute is not None and attribute not in _BY_ATTRIBUTE):
        raise AwsError(
            "UnsupportedOperation", f"The attribute {refused[0] if refused else attribute} cannot be modified here."
        )
    if len(members) + (attribute is not None and attribute != "blockDeviceMapping") > 1:
        raise AwsError(
            "InvalidParameterCombination", "Fields for multiple attribute types specified; modify one a time"
        )
    if members:
        _MODIFIED[members[0]][1](call, instance, given[members[0]])
    elif attribute is not None:
        _BY_ATTRIBUTE[attribute](call, instance, given.get("Value"))
    else:
        raise AwsError("InvalidParameterCombination", "No attributes specified.")
    return {}


@ACTIONS.action
def reset_instance_attribute(call: Call, request: ec2.ResetInstanceAttributeRequestTypeDef) -> Answer:
    """sourceDestCheck, to true: the one attribute that has anything to be reset to here."""
    instance = find_live_instance(call, request["InstanceId"])
    if request["Attribute"] != "sourceDestCheck":
        raise AwsError(
            "InvalidParameterValue",
            f"The attribute {request['Attribute'][:64]} cannot be reset here; sourceDestCheck can.",
        )
    _set_source_check(call, instance, True)
    return {}


@ACTIONS.action
def modify_instance_maintenance_options(
    call: Call, request: ec2.ModifyInstanceMaintenanceOptionsRequestTypeDef
) -> Answer:
    """Whether an instance whose machine was killed is started again."""
    instance = find_live_instance(call, request["InstanceId"])
    recovery = request.get("AutoRecovery")
    if recovery not in (None, "default", "disabled"):
        raise AwsError("InvalidParameterValue", f"Value ({recovery}) for AutoRecovery must be default or disabled.")
    migration = request.get("RebootMigration")
    if migration not in (None, "default"):
        raise AwsError("Unsupported", "No instance here is moved by a reboot; leave RebootMigration at default.")
    instance.auto_recovery = recovery or instance.auto_recovery
    return {"InstanceId": instance.id, "AutoRecovery": instance.auto_recovery, "RebootMigration": migration}


_CREDIT_FILTERS = Filters[Instance]({"instance-id": lambda row: row.id})


@ACTIONS.action
def describe_instance_credit_specifications(
    call: Call, request: ec2.DescribeInstanceCreditSpecificationsRequestTypeDef
) -> Answer:
    """Of burstable instances."""
    identifiers = request.get("InstanceIds")
    if identifiers:
        rows = find_instances(call, identifiers)
    else:
        held = select(Instance).where(Instance.account == call.account, Instance.region == call.region)
        rows = [row for row in call.session.scalars(held) if row.credits == "unlimited"]
    matches = _CREDIT_FILTERS.matcher(request.get("Filters"))
    found = [row for row in rows if row.credits and matches(row)]
    shown, token = page(call, request, found, key=lambda row: row.id)
    return {
        "InstanceCreditSpecifications": [{"InstanceId": row.id, "CpuCredits": row.credits} for row in shown],
        "NextToken": token,
    }


@ACTIONS.action
def modify_instance_credit_specification(
    call: Call, request: ec2.ModifyInstanceCreditSpecificationRequestTypeDef
) -> Answer:
    """Remembered; what each could do and what not."""
    done: list[dict[str, object]] = []
    failed: list[dict[str, object]] = []
    for asked in request["InstanceCreditSpecifications"]:
        credits = asked.get("CpuCredits")
        try:
            instance = find_live_instance(call, asked["InstanceId"])
            if not instance.credits or credits not in ("standard", "unlimited"):
                raise AwsError(
                    "InstanceCreditSpecification.NotSupported",
                    f"The instance type {instance.instance_type} takes no CpuCredits {credits}",
                )
        except AwsError as error:
            failed.append({"InstanceId": asked["InstanceId"], "Error": {"Code": error.code, "Message": error.message}})
            continue
        instance.credits = str(credits)
        done.append({"InstanceId": instance.id})
    return {"SuccessfulInstanceCreditSpecifications": done, "UnsuccessfulInstanceCreditSpecifications": failed}


@ACTIONS.action
def get_password_data(call: Call, request: ec2.GetPasswordDataRequestTypeDef) -> Answer:
    """Empty: only Windows has one."""
    instance = find_instance(call, request["InstanceId"])
    return {"InstanceId": instance.id, "PasswordData": "", "Timestamp": call.now}


@ACTIONS.action
def get_instance_uefi_data(call: Call, request: ec2.GetInstanceUefiDataRequestTypeDef) -> Answer:
    """Refused: no image here keeps UEFI variables."""
    instance = find_instance(call, request["InstanceId"])
    raise AwsError(
        "UnsupportedOperation", f"The instance '{instance.id}' does not boot by UEFI, and has no variables of it."
    )


@ACTIONS.action
def modify_private_dns_name_options(call: Call, request: ec2.ModifyPrivateDnsNameOptionsRequestTypeDef) -> Answer:
    """Instances have one name, of their address; to ask for that is no mistake, and for others AwsError Unsupported."""
    find_live_instance(call, request["InstanceId"])
    refuse_other_names(request.get("PrivateDnsHostnameType"), request)
    return {"Return": True}
