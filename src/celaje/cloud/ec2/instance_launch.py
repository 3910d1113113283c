"""RunInstances: everything is checked, and all rows are made, in the one transaction that the request has."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from celaje.cloud.authority.ec2 import ALL_SAID
from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_by_type
from celaje.cloud.ec2 import images, network_interfaces
from celaje.cloud.ec2.account_defaults import default_credits
from celaje.cloud.ec2.block_devices import at_launch
from celaje.cloud.ec2.instance_descriptions import reservations, views
from celaje.cloud.ec2.instance_lookup import CONTROLLER, NETWORKS, VOLUMES
from celaje.cloud.ec2.instance_types import TYPES, InstanceType
from celaje.cloud.ec2.key_pairs import public_key_line
from celaje.cloud.ec2.launch_network import LaunchNetwork, chosen_networks
from celaje.cloud.ec2.launch_refusals import refuse_other_cpus, refuse_what_is_not_here
from celaje.cloud.ec2.launch_templates import with_template
from celaje.cloud.ec2.metadata_options import launch_options
from celaje.cloud.ec2.network_interface_actions import refuse_another
from celaje.cloud.ec2.placement import require_room
from celaje.cloud.ec2.private_addresses import add_secondary
from celaje.cloud.ec2.profiles import find_profile
from celaje.cloud.ec2.public_addresses import assign_public
from celaje.cloud.ec2.user_data import decoded_user_data
from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import PENDING, Instance, MetadataOptions
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.tags import set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
DEFAULT_TYPE = "t3.micro"
MOST_INSTANCES = 1000  # of one request
SHUTDOWN_BEHAVIOURS = ("stop", "terminate")
_TAGGED = ("instance", "volume", "network-interface")


@dataclass(frozen=True, slots=True)
class _Launch:
    """What each instance of the request is made of."""

    image: Image
    kind: InstanceType
    networks: Sequence[LaunchNetwork]
    key_name: str
    key_line: str
    user_data: bytes | None
    metadata_options: MetadataOptions
    profile: tuple[str, str]
    credits: str
    tags: Mapping[str, Mapping[str, str]]

    @property
    def network(self) -> LaunchNetwork:
        """That of its first interface."""
        return self.networks[0]


@ACTIONS.action
def run_instances(call: Call, request: ec2.RunInstancesRequestTypeDef) -> Answer:
    """As many instances as there is room for, from MinCount to MaxCount; otherwise none, and nothing is left behind."""
    merged, told = with_template(call, request)
    request = cast("ec2.RunInstancesRequestTypeDef", merged)
    least, most = _counts(request)
    refuse_what_is_not_here(request)
    launch = _checked(call, request, most, told)
    if call.authority is not None:
        call.authority.check(call, _all_asked(merged, launch))
    count = min(most, require_room(call.session, launch.kind, least, launch.network.subnet.zone))
    reservation = new_id("r")
    rows = [_add(call, request, launch, reservation, index) for index in range(count)]
    call.session.flush()
    for controller in (VOLUMES, NETWORKS, CONTROLLER):
        call.wake(controller)
    return reservations(views(call.session, rows))[0]


def _all_asked(request: Mapping[str, Any], launch: _Launch) -> dict[str, object]:
    """What the launch is made with, also where a template or a default says it: all of that must be allowed."""
    return {
        **request,
        "ImageId": launch.image.id,
        "InstanceType": launch.kind.name,
        "AvailabilityZone": launch.network.subnet.zone,
        "MetadataHttpEndpoint": launch.metadata_options.http_endpoint,
        "MetadataHttpPutResponseHopLimit": launch.metadata_options.http_put_response_hop_limit,
        "MetadataHttpTokens": launch.metadata_options.http_tokens,
        ALL_SAID: [network.subnet.id for network in launch.networks],
        "GroupIds": [group for network in launch.networks for group in network.groups],
    }


def _counts(request: ec2.RunInstancesRequestTypeDef) -> tuple[int, int]:
    least, most = request["MinCount"], request["MaxCount"]
    for name, value in (("minCount", least), ("maxCount", most)):
        if value < 1:
            raise AwsError("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid. Must be > 0")
    if least > most:
        raise AwsError(
            "InvalidParameterCombination", f"The minCount ({least}) may not be greater than the maxCount ({most})."
        )
    if least > MOST_INSTANCES:
        raise AwsError("InstanceLimitExceeded", f"At most {MOST_INSTANCES} instances are made at once, not {least}.")
    return least, min(most, MOST_INSTANCES)


def _checked(call: Call, request: ec2.RunInstancesRequestTypeDef, most: int, told: Mapping[str, str]) -> _Launch:
    identifier = request.get("ImageId")
    if not identifier:
        raise AwsError("MissingParameter", "The request must contain the parameter ImageId")
    image = images.launchable(call, identifier)
    kind = checked_type(request.get("InstanceType") or DEFAULT_TYPE)
    _check_architecture(call, image, kind)
    refuse_other_cpus(kind, request.get("CpuOptions") or {})
    key_name = request.get("KeyName") or ""
    behaviour = request.get("InstanceInitiatedShutdownBehavior")
    if behaviour is not None:
        checked_behaviour(behaviour)
    tags = tags_by_type(request.get("TagSpecifications"), *_TAGGED)
    tags["instance"] |= told
    return _Launch(
        image=image,
        kind=kind,
        networks=chosen_networks(call, request, kind, most),
        key_name=key_name,
        key_line=public_key_line(call.session, call.account, call.region, key_name) if key_name else "",
        user_data=decoded_user_data(request.get("UserData")),
        metadata_options=launch_options(request.get("MetadataOptions"), image.instance_metadata_v2_only),
        profile=find_profile(call, request.get("IamInstanceProfile")),
        credits=_credits(kind, request.get("CreditSpecification")),
        tags=tags,
    )


def checked_type(name: str) -> InstanceType:
    """The type of that name. AwsError."""
    kind = TYPES.get(name)
    if kind is None:
        raise AwsError(
            "InvalidParameterValue", f"Invalid value '{name[:64]}' for InstanceType. DescribeInstanceTypes lists them."
        )
    return kind


def _check_architecture(call: Call, image: Image, kind: InstanceType) -> None:
    host = call.session.get(Host, LOCAL)
    runs = set(kind.architectures) & set(host.architectures.split() if host else kind.architectures)
    if image.architecture not in runs:
        raise AwsError(
            "Unsupported",
            f"The architecture '{image.architecture}' of the image {image.id} is none that an engine of this host runs "
            f"({', '.join(sorted(runs)) or 'none'}). Use an image of one of these; DescribeInstanceTypes lists them.",
        )


def checked_behaviour(value: str) -> str:
    """An InstanceInitiatedShutdownBehavior. AwsError."""
    if value not in SHUTDOWN_BEHAVIOURS:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({value[:64]}) for parameter instanceInitiatedShutdownBehavior is invalid. It must be stop or "
            "terminate.",
        )
    return value


def _credits(kind: InstanceType, given: ec2.CreditSpecificationRequestTypeDef | None) -> str:
    asked = given["CpuCredits"] if given else ""
    if not kind.burstable:
        if asked:
            raise AwsError(
                "InstanceCreditSpecification.NotSupported",
                f"The {kind.name} instance type does not support T2 Unlimited.",
            )
        return ""
    if asked not in ("", "standard", "unlimited"):
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({asked[:64]}) for CpuCredits is invalid. It must be standard or unlimited.",
        )
    return asked or default_credits(kind.family)


def _add(
    call: Call, request: ec2.RunInstancesRequestTypeDef, launch: _Launch, reservation: str, index: int
) -> Instance:
    """One instance's rows."""
    identifier = new_id("i")
    interfaces = [_plugged(call, one, identifier, card) for card, one in enumerate(launch.networks)]
    maintenance, monitoring = request.get("MaintenanceOptions"), request.get("Monitoring")
    instance = Instance(
        id=identifier,
        account=call.account,
        region=call.region,
        created=call.now,
        reservation=reservation,
        launch_index=index,
        client_token=request.get("ClientToken") or "",
        image=launch.image.id,
        architecture=launch.image.architecture,
        instance_type=launch.kind.name,
        zone=launch.network.subnet.zone,
        vpc=launch.network.subnet.vpc,
        subnet=launch.network.subnet.id,
        interface=interfaces[0].id,
        key_name=launch.key_name,
        key_line=launch.key_line,
        root_device=launch.image.root_device,
        launched=call.now,
        wanted="running",
        memory=launch.kind.memory_mib,
        vcpus=launch.kind.vcpus,
        user_data=launch.user_data,
        shutdown_behaviour=request.get("InstanceInitiatedShutdownBehavior") or "stop",
        protected=bool(request.get("DisableApiTermination")),
        stop_protected=bool(request.get("DisableApiStop")),
        metadata_options=launch.metadata_options,
        profile=launch.profile[0],
        profile_id=launch.profile[1],
        profile_association=f"iip-assoc-{secrets.token_hex(9)[:17]}" if launch.profile[0] else "",
        monitoring=bool(monitoring and monitoring["Enabled"]),
        ebs_optimized=bool(request.get("EbsOptimized")),
        credits=launch.credits,
        auto_recovery=(maintenance and maintenance.get("AutoRecovery")) or "default",
    )
    instance.enter(PENDING, call.now, code="pending", reason="pending")
    call.session.add(instance)
    mappings: Sequence[ec2.BlockDeviceMappingTypeDef] = request.get("BlockDeviceMappings") or ()
    at_launch(call, identifier, instance.zone, mappings, launch.image, tags=launch.tags["volume"])
    for kind, resource in (("instance", identifier), *(("network-interface", one.id) for one in interfaces)):
        if launch.tags[kind]:
            set_tags(call.session, resource, kind, call.account, call.region, launch.tags[kind])
    return instance


def _plugged(call: Call, network: LaunchNetwork, instance: str, card: int) -> NetworkInterface:
    """An interface of the instance: one that was named, or a new one."""
    if network.interface is not None:
        interface = call.session.get_one(NetworkInterface, network.interface)
    else:
        refuse_another(call)
        interface = network_interfaces.allocate(
            call.session,
            account=call.account,
            region=call.region,
            subnet=network.subnet,
            groups=network.groups,
            private_address=network.private_address,
            description=network.description,
            now=call.now,
        )
        add_secondary(call.session, interface, network.secondary, network.count)
        if network.public:
            assign_public(call.session, interface, call.settings.public_pool)
    network_interfaces.attach(interface, instance, network.device_index, network.delete_on_termination, call.now, card)
    return interface
