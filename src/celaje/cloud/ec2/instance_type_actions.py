"""What instance types there are, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.instance_types import TYPES, InstanceType
from celaje.cloud.ec2.regions import zones_of
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_FREE_TIER = frozenset(("t2.micro", "t3.micro", "t3.small", "t4g.micro", "t4g.small"))
_GBIT = 10**9


_FILTERS = Filters[InstanceType](
    {
        "bare-metal": lambda kind: False,
        "burstable-performance-supported": lambda kind: kind.burstable,
        "current-generation": lambda kind: kind.current,
        "dedicated-hosts-supported": lambda kind: False,
        "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps": lambda kind: kind.ebs.bandwidth if kind.ebs else None,
        "ebs-info.ebs-optimized-info.baseline-iops": lambda kind: kind.ebs.operations if kind.ebs else None,
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps": lambda kind: (
            kind.ebs.peak_bandwidth if kind.ebs else None
        ),
        "ebs-info.ebs-optimized-info.maximum-iops": lambda kind: kind.ebs.peak_operations if kind.ebs else None,
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps": lambda kind: (
            kind.ebs.bandwidth / 8 if kind.ebs else None
        ),
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps": lambda kind: (
            kind.ebs.peak_bandwidth / 8 if kind.ebs else None
        ),
        "ebs-info.ebs-optimized-support": lambda kind: "default" if kind.ebs else "unsupported",
        "ebs-info.encryption-support": lambda kind: "unsupported",
        "ebs-info.nvme-support": lambda kind: "unsupported",
        "free-tier-eligible": lambda kind: kind.name in _FREE_TIER,
        "hibernation-supported": lambda kind: False,
        "hypervisor": lambda kind: kind.hypervisor,
        "instance-storage-info.disk.count": lambda kind: len(kind.store_gb) or None,
        "instance-storage-info.disk.size-in-gb": lambda kind: kind.store_gb,
        "instance-storage-info.disk.type": lambda kind: "ssd" if kind.store_gb else None,
        "instance-storage-info.total-size-in-gb": lambda kind: sum(kind.store_gb) or None,
        "instance-storage-supported": lambda kind: bool(kind.store_gb),
        "instance-type": lambda kind: kind.name,
        "memory-info.size-in-mib": lambda kind: kind.memory_mib,
        "network-info.efa-supported": lambda kind: False,
        "network-info.ena-support": lambda kind: "unsupported",
        "network-info.ipv4-addresses-per-interface": lambda kind: kind.addresses_per_interface,
        "network-info.ipv6-supported": lambda kind: False,
        "network-info.maximum-network-cards": lambda kind: 1,
        "network-info.maximum-network-interfaces": lambda kind: kind.interfaces,
        "network-info.network-performance": lambda kind: kind.network_performance,
        "processor-info.supported-architecture": lambda kind: kind.architectures,
        "supported-boot-mode": lambda kind: None,
        "supported-root-device-type": lambda kind: "ebs",
        "supported-usage-class": lambda kind: "on-demand",
        "supported-virtualization-type": lambda kind: "hvm",
        "vcpu-info.default-cores": lambda kind: kind.cores,
        "vcpu-info.default-threads-per-core": lambda kind: kind.threads_per_core,
        "vcpu-info.default-vcpus": lambda kind: kind.vcpus,
        "vcpu-info.valid-cores": lambda kind: kind.cores,
        "vcpu-info.valid-threads-per-core": lambda kind: kind.threads_per_core,
        "auto-recovery-supported": lambda kind: False,
        "instance-storage-info.encryption-support": lambda kind: "unsupported" if kind.store_gb else None,
        "instance-storage-info.nvme-support": lambda kind: "unsupported" if kind.store_gb else None,
        "network-info.encryption-in-transit-supported": lambda kind: False,
        "network-info.ipv6-addresses-per-interface": lambda kind: 0,
        "nitro-enclaves-support": lambda kind: "unsupported",
        "nitro-tpm-support": lambda kind: "unsupported",
    },
    never=(
        "network-info.efa-info.maximum-efa-interfaces",
        "nitro-tpm-info.supported-versions",
        "processor-info.sustained-clock-speed-in-ghz",
    ),
)


@ACTIONS.action
def describe_instance_types(call: Call, request: ec2.DescribeInstanceTypesRequestTypeDef) -> Answer:
    """The types: every one runs every image whose architecture some engine here runs, and those it names."""
    matches = _FILTERS.matcher(request.get("Filters"))
    names: Iterable[str] = request.get("InstanceTypes") or ()
    if names and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter InstanceTypes cannot be used with the parameter MaxResults",
        )
    unknown = sorted({name for name in names if name not in TYPES})
    if unknown:
        raise AwsError(
            "InvalidInstanceType",
            f"The following supplied instance types do not exist: [{', '.join(unknown)[:500]}]",
        )
    kinds = [TYPES[name] for name in dict.fromkeys(names)] or list(TYPES.values())
    found = [kind for kind in kinds if matches(kind)]
    answered, token = page(call, request, found, key=lambda kind: kind.name, most=100, default=100)
    return {"InstanceTypes": [_described(kind) for kind in answered], "NextToken": token}


def _described(kind: InstanceType) -> dict[str, object]:
    answer: dict[str, object] = {
        "AutoRecoverySupported": False,
        "BareMetal": False,
        "BurstablePerformanceSupported": kind.burstable,
        "CurrentGeneration": kind.current,
        "DedicatedHostsSupported": False,
        "EbsInfo": _ebs(kind),
        "FreeTierEligible": kind.name in _FREE_TIER,
        "HibernationSupported": False,
        "Hypervisor": kind.hypervisor,
        "InstanceStorageSupported": bool(kind.store_gb),
        "InstanceType": kind.name,
        "MemoryInfo": {"SizeInMiB": kind.memory_mib},
        "NetworkInfo": _network(kind),
        "PlacementGroupInfo": {"SupportedStrategies": []},
        "ProcessorInfo": {"SupportedArchitectures": list(kind.architectures)},
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedUsageClasses": ["on-demand"],
        "SupportedVirtualizationTypes": ["hvm"],
        "VCpuInfo": {
            "DefaultCores": kind.cores,
            "DefaultThreadsPerCore": kind.threads_per_core,
            "DefaultVCpus": kind.vcpus,
            "ValidCores": [kind.cores],
            "ValidThreadsPerCore": [kind.threads_per_core],
        },
    }
    if kind.store_gb:
        answer["InstanceStorageInfo"] = {
            "Disks": [{"Count": len(kind.store_gb), "SizeInGB": kind.store_gb[0], "Type": "ssd"}],
            "EncryptionSupport": "unsupported",
            "NvmeSupport": "unsupported",
            "TotalSizeInGB": sum(kind.store_gb),
        }
    if kind.gpu:
        memory = kind.gpu.memory_mib
        answer["GpuInfo"] = {
            "Gpus": [
                {
                    "Count": kind.gpu.count,
                    "Manufacturer": "NVIDIA",
                    "MemoryInfo": {"SizeInMiB": memory},
                    "Name": kind.gpu.model,
                }
            ],
            "TotalGpuMemoryInMiB": memory * kind.gpu.count,
        }
    return answer


def _ebs(kind: InstanceType) -> dict[str, object]:
    answer: dict[str, object] = {
        "EbsOptimizedSupport": "default" if kind.ebs else "unsupported",
        "EncryptionSupport": "unsupported",
        "NvmeSupport": "unsupported",
    }
    if kind.ebs:
        answer["EbsOptimizedInfo"] = {
            "BaselineBandwidthInMbps": kind.ebs.bandwidth,
            "BaselineIops": kind.ebs.operations,
            "BaselineThroughputInMBps": kind.ebs.bandwidth / 8,
            "MaximumBandwidthInMbps": kind.ebs.peak_bandwidth,
            "MaximumIops": kind.ebs.peak_operations,
            "MaximumThroughputInMBps": kind.ebs.peak_bandwidth / 8,
        }
    return answer


def _network(kind: InstanceType) -> dict[str, object]:
    return {
        "DefaultNetworkCardIndex": 0,
        "EfaSupported": False,
        "EnaSupport": "unsupported",
        "EncryptionInTransitSupported": False,
        "Ipv4AddressesPerInterface": kind.addresses_per_interface,
        "Ipv6AddressesPerInterface": 0,
        "Ipv6Supported": False,
        "MaximumNetworkCards": 1,
        "MaximumNetworkInterfaces": kind.interfaces,
        "NetworkCards": [
            {
                "BaselineBandwidthInGbps": kind.baseline_bandwidth / _GBIT,
                "MaximumNetworkInterfaces": kind.interfaces,
                "NetworkCardIndex": 0,
                "NetworkPerformance": kind.network_performance,
                "PeakBandwidthInGbps": kind.bandwidth / _GBIT,
            }
        ],
        "NetworkPerformance": kind.network_performance,
    }


@dataclass(frozen=True, slots=True)
class _Offering:
    kind: str
    location: str


_OFFERING_FILTERS = Filters[_Offering](
    {"instance-type": lambda offering: offering.kind, "location": lambda offering: offering.location}
)


@ACTIONS.action
def describe_instance_type_offerings(
    call: Call, request: ec2.DescribeInstanceTypeOfferingsRequestTypeDef
) -> Answer:
    """Every type is offered everywhere."""
    location_type = request.get("LocationType", "region")
    zones = zones_of(call)
    places = {
        "region": [call.region],
        "availability-zone": zones,
        "availability-zone-id": [zone_id(call.region, zone) for zone in zones],
    }
    if location_type not in places:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({location_type}) for parameter LocationType is invalid. It is one of {', '.join(places)}",
        )
    matches = _OFFERING_FILTERS.matcher(request.get("Filters"))
    every = (_Offering(kind, place) for kind in TYPES for place in places[location_type])
    found, token = page(
        call, request, filter(matches, every), key=lambda one: f"{one.kind} {one.location}", default=1000
    )
    return {
        "InstanceTypeOfferings": [
            {"InstanceType": one.kind, "Location": one.location, "LocationType": location_type} for one in found
        ],
        "NextToken": token,
    }
