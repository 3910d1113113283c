"""What AWS has, clients ask for unasked, and this cloud cannot have: lists that are truly empty.

Spot requests, reservations, hosts and the like are refused wherever they would be made. So the list of them is empty
for every filter, and an identifier of one is an identifier of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.pagination import page

ACTIONS = Actions("ec2")


@dataclass(frozen=True, slots=True)
class _Nothing:
    """What an action answers: `answer` is its empty list. `named` are the members that take identifiers, with AWS's
    code and message for one that nothing has."""

    answer: str
    named: Mapping[str, tuple[str, str]]


def _ids(member: str, code: str, noun: str) -> dict[str, tuple[str, str]]:
    return {member: (code, f"The {noun} '{{}}' does not exist")}


_EMPTY: dict[str, _Nothing] = {
    # Ways from a VPC to other networks.
    "describe_carrier_gateways": _Nothing(
        "CarrierGateways",
        _ids("CarrierGatewayIds", "InvalidCarrierGatewayID.NotFound", "carrier gateway ID"),
    ),
    "describe_customer_gateways": _Nothing(
        "CustomerGateways",
        _ids("CustomerGatewayIds", "InvalidCustomerGatewayID.NotFound", "customerGateway ID"),
    ),
    "describe_egress_only_internet_gateways": _Nothing(
        "EgressOnlyInternetGateways",
        _ids("EgressOnlyInternetGatewayIds", "InvalidGatewayID.NotFound", "egress-only internet gateway ID"),
    ),
    "describe_flow_logs": _Nothing("FlowLogs", _ids("FlowLogIds", "InvalidFlowLogId.NotFound", "flow log ID")),
    "describe_managed_prefix_lists": _Nothing(
        "PrefixLists",
        _ids("PrefixListIds", "InvalidPrefixListID.NotFound", "prefix list ID"),
    ),
    "describe_prefix_lists": _Nothing(
        "PrefixLists",
        _ids("PrefixListIds", "InvalidPrefixListId.NotFound", "prefix list ID"),
    ),
    "describe_public_ipv4_pools": _Nothing(
        "PublicIpv4Pools",
        _ids("PoolIds", "InvalidPublicIpv4PoolID.NotFound", "public IPv4 pool ID"),
    ),
    "describe_transit_gateway_vpc_attachments": _Nothing(
        "TransitGatewayVpcAttachments",
        _ids("TransitGatewayAttachmentIds", "InvalidTransitGatewayAttachmentID.NotFound", "transit gateway attachment"),
    ),
    "describe_transit_gateways": _Nothing(
        "TransitGateways",
        _ids("TransitGatewayIds", "InvalidTransitGatewayID.NotFound", "transit gateway"),
    ),
    "describe_vpc_endpoints": _Nothing(
        "VpcEndpoints",
        _ids("VpcEndpointIds", "InvalidVpcEndpointId.NotFound", "VPC endpoint ID"),
    ),
    "describe_vpc_peering_connections": _Nothing(
        "VpcPeeringConnections",
        _ids("VpcPeeringConnectionIds", "InvalidVpcPeeringConnectionID.NotFound", "vpcPeeringConnection ID"),
    ),
    "describe_vpn_connections": _Nothing(
        "VpnConnections",
        _ids("VpnConnectionIds", "InvalidVpnConnectionID.NotFound", "vpnConnection ID"),
    ),
    "describe_vpn_gateways": _Nothing(
        "VpnGateways",
        _ids("VpnGatewayIds", "InvalidVpnGatewayID.NotFound", "vpnGateway ID"),
    ),
    # Ways to pay for instances, and to move them.
    "describe_bundle_tasks": _Nothing("BundleTasks", _ids("BundleIds", "InvalidBundleID.NotFound", "bundle task")),
    "describe_capacity_reservations": _Nothing(
        "CapacityReservations",
        _ids("CapacityReservationIds", "InvalidCapacityReservationId.NotFound", "capacity reservation"),
    ),
    "describe_conversion_tasks": _Nothing(
        "ConversionTasks", _ids("ConversionTaskIds", "InvalidConversionTaskId", "conversion task")
    ),
    "describe_export_image_tasks": _Nothing(
        "ExportImageTasks", _ids("ExportImageTaskIds", "InvalidExportTaskId.NotFound", "export task")
    ),
    "describe_export_tasks": _Nothing(
        "ExportTasks", _ids("ExportTaskIds", "InvalidExportTaskID.NotFound", "export task")
    ),
    "describe_fast_snapshot_restores": _Nothing("FastSnapshotRestores", {}),
    "describe_fleets": _Nothing("Fleets", _ids("FleetIds", "InvalidFleetId.NotFound", "fleet")),
    "describe_hosts": _Nothing("Hosts", _ids("HostIds", "InvalidHostID.NotFound", "host ID")),
    "describe_locked_snapshots": _Nothing("Snapshots", {}),
    "describe_placement_groups": _Nothing(
        "PlacementGroups",
        {
            "GroupIds": ("InvalidPlacementGroupId.NotFound", "The placement group '{}' does not exist"),
            "GroupNames": ("InvalidPlacementGroup.Unknown", "The Placement Group '{}' is unknown."),
        },
    ),
    "describe_reserved_instances": _Nothing(
        "ReservedInstances",
        _ids("ReservedInstancesIds", "InvalidReservedInstancesId.NotFound", "reserved instances ID"),
    ),
    "describe_spot_fleet_requests": _Nothing(
        "SpotFleetRequestConfigs",
        _ids("SpotFleetRequestIds", "InvalidSpotFleetRequestId.NotFound", "spot fleet request ID"),
    ),
    "describe_spot_instance_requests": _Nothing(
        "SpotInstanceRequests",
        _ids("SpotInstanceRequestIds", "InvalidSpotInstanceRequestID.NotFound", "spot instance request ID"),
    ),
    "list_images_in_recycle_bin": _Nothing("Images", {}),
    "list_snapshots_in_recycle_bin": _Nothing("Snapshots", {}),
}


def _action(name: str, nothing: _Nothing) -> None:
    def answered(call: Call, request: Request) -> Answer:
        for member, (code, message) in nothing.named.items():
            for identifier in request.get(member) or ():
                raise AwsError(code, message.format(str(identifier)[:100]))
        page(call, request, (), str, least=0)  # AwsError for a token, since none was ever given
        return {nothing.answer: []}

    answered.__name__ = name
    ACTIONS.add(answered, reads=True)


for _name, _nothing in _EMPTY.items():
    _action(_name, _nothing)
