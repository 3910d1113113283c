"""The types of volumes, as EBS has them, and what sizes and performance each may have.

Performance is what the volume is described with: a volume here is as fast as the host's disk. It is checked all the
same, so that what is accepted here is accepted there.
"""

from __future__ import annotations

from dataclasses import dataclass

from celaje.cloud.aws.errors import AwsError

DEFAULT = "gp2"  # where a request does not say, as at AWS; images say gp3


@dataclass(frozen=True, slots=True)
class VolumeKind:
    """Sizes in GiB, throughput in MiB/s. `iops` are the least and the most that may be asked for, None: none may.

    `ratio` is the most IOPS a GiB. `iops_for` a GiB are what gp2 has without being asked.
    """

    name: str
    size: tuple[int, int]
    iops: tuple[int, int] | None = None
    default_iops: int | None = None  # None with `iops`: the request must say
    ratio: int = 0
    throughput: tuple[int, int] | None = None
    default_throughput: int | None = None

    def baseline(self, size: int) -> int | None:
        """The IOPS of a volume of `size` for which nobody asked any."""
        return min(16_000, max(100, 3 * size)) if self.name == "gp2" else self.default_iops


KINDS = {
    kind.name: kind
    for kind in (
        VolumeKind("gp3", (1, 65_536), (3_000, 80_000), 3_000, 500, (125, 2_000), 125),
        VolumeKind("gp2", (1, 16_384)),
        VolumeKind("io1", (4, 16_384), (100, 64_000), None, 50),
        VolumeKind("io2", (4, 65_536), (100, 256_000), None, 1_000),
        VolumeKind("st1", (125, 16_384)),
        VolumeKind("sc1", (125, 16_384)),
        VolumeKind("standard", (1, 1_024)),
    )
}


@dataclass(frozen=True, slots=True)
class Performance:
    """What a volume of a kind and size is described with."""

    kind: str
    iops: int | None
    throughput: int | None


def checked(name: str, size: int, iops: int | None, throughput: int | None) -> Performance:
    """What a volume of `size` GiB of the kind `name` has, with what the request asks for. AwsError as EBS has it."""
    kind = KINDS.get(name)
    if kind is None:
        known = ", ".join(KINDS)
        raise AwsError("UnknownVolumeType", f"Unsupported volume type '{name[:100]}' for volume creation: use {known}")
    least, most = kind.size
    if size > most:
        raise AwsError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is too large for volume type {name}; maximum is {most}GiB.",
        )
    if size < least:
        raise AwsError(
            "InvalidParameterValue",
            f"Volume of {size}GiB is too small for volume type {name}; minimum is {least}GiB.",
        )
    if kind.iops is None and iops is not None:
        raise AwsError("InvalidParameterCombination", f"The parameter iops is not supported for {name} volumes.")
    if kind.iops is not None:
        iops = _checked_iops(kind, kind.iops, size, kind.default_iops if iops is None else iops)
    if kind.throughput is None and throughput is not None:
        raise AwsError("InvalidParameterCombination", f"The parameter throughput is not supported for {name} volumes.")
    if kind.throughput is not None:
        throughput = kind.default_throughput if throughput is None else throughput
        assert throughput is not None
        assert iops is not None
        _between("throughput", throughput, kind.throughput, "MiB/s")
        if throughput > iops // 4:
            raise AwsError(
                "InvalidParameterValue",
                f"Throughput (MiBps) to iops ratio of {throughput / iops:.6f} is too high; maximum is 0.250000 "
                "MiBps per iops.",
            )
    return Performance(name, iops if kind.iops else kind.baseline(size), throughput)


def _checked_iops(kind: VolumeKind, bounds: tuple[int, int], size: int, iops: int | None) -> int:
    if iops is None:
        raise AwsError("MissingParameter", f"The parameter iops must be specified for {kind.name} volumes.")
    _between("iops", iops, bounds, "")
    if iops > kind.ratio * size and iops != kind.default_iops:
        raise AwsError(
            "InvalidParameterValue",
            f"Iops to volume size ratio of {iops / size:.6f} is too high; maximum is {kind.ratio}.",
        )
    return iops


def _between(what: str, value: int, bounds: tuple[int, int], unit: str) -> None:
    least, most = bounds
    if value > most:
        raise AwsError("InvalidParameterValue", f"Volume {what} of {value}{unit} is too high; maximum is {most}{unit}.")
    if value < least:
        raise AwsError("InvalidParameterValue", f"Volume {what} of {value}{unit} is too low; minimum is {least}{unit}.")
