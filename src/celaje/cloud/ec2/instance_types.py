"""Instance types. A type is a size, never an architecture: an image's architecture decides what executes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celaje.cloud.ec2.instance_type_table import BURSTABLE, PREVIOUS, TABLE, THREADED, XEN

# Those of images that an engine of celaje runs.
ARCHITECTURES = ("riscv64",)

_GIGABIT = 10**9
_GIB_IN_GB = 10**9 / 2**30


@dataclass(frozen=True, slots=True)
class EbsLimits:
    """What a type can do on its volumes: Mbit/s and operations a second, sustained and at its peak."""

    bandwidth: int
    peak_bandwidth: int
    operations: int
    peak_operations: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory_mib` is each one's."""

    count: int
    model: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class InstanceType:
    """`bandwidth` is the network's peak and `baseline_bandwidth` what it can keep up, in bits a second.
    `store_gb` has one number a disk of its instance store, in 10^9 bytes."""

    name: str
    vcpus: int
    memory_mib: int
    interfaces: int
    addresses_per_interface: int
    baseline_bandwidth: int
    bandwidth: int
    ebs: EbsLimits | None
    store_gb: tuple[int, ...]
    gpu: Gpu | None
    architectures: tuple[str, ...] = ARCHITECTURES

    @property
    def family(self) -> str:
        """t3 of t3.micro."""
        return self.name.partition(".")[0]

    @property
    def threads_per_core(self) -> int:
        """How many vCPUs a core has."""
        return 2 if self.family in THREADED and self.vcpus > 1 else 1

    @property
    def cores(self) -> int:
        """How many cores its vCPUs are of."""
        return self.vcpus // self.threads_per_core

    @property
    def burstable(self) -> bool:
        """Whether it gathers CPU credits."""
        return self.family in BURSTABLE

    @property
    def current(self) -> bool:
        """Whether AWS counts it among the current generation."""
        return self.family not in PREVIOUS

    @property
    def hypervisor(self) -> str:
        """AWS's word, xen or nitro: it decides how clients name devices."""
        return "xen" if self.family in XEN else "nitro"

    @property
    def instance_store_gib(self) -> tuple[int, ...]:
        """One number a disk, in whole GiB."""
        return tuple(int(size * _GIB_IN_GB) for size in self.store_gb)

    @property
    def network_performance(self) -> str:
        """In AWS's words."""
        gigabits = f"{self.bandwidth / _GIGABIT:g} Gigabit"
        return f"Up to {gigabits}" if self.bandwidth > self.baseline_bandwidth else gigabits


def _read_table(lines: Iterable[str]) -> dict[str, InstanceType]:
    types = {}
    for line in lines:
        name, vcpus, memory, interfaces, addresses, baseline, peak, *ebs, store, gpu = line.split()
        disks, _, size = store.partition("x")
        gpus, _, kind = gpu.partition("x")
        model, _, gpu_memory = kind.partition("/")
        types[name] = InstanceType(
            name=name,
            vcpus=int(vcpus),
            memory_mib=int(memory),
            interfaces=int(interfaces),
            addresses_per_interface=int(addresses),
            baseline_bandwidth=round(float(baseline) * _GIGABIT),
            bandwidth=round(float(peak) * _GIGABIT),
            ebs=None if ebs[0] == "-" else EbsLimits(*map(int, ebs)),
            store_gb=() if store == "-" else (int(size),) * int(disks),
            gpu=None if gpu == "-" else Gpu(int(gpus), model, int(gpu_memory)),
        )
    return types


TYPES: Mapping[str, InstanceType] = _read_table(TABLE.strip().splitlines())
