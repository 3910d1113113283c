"""IEEE 754 arithmetic over abstract values, in integers alone, with RISC-V's NaN rules (Unprivileged ISA, 20, 21)."""

from __future__ import annotations

from dataclasses import dataclass

NV, DZ, OF, UF, NX = 16, 8, 4, 2, 1  # the accrued exception flags as fflags has them
RNE, RTZ, RDN, RUP, RMM = range(5)  # the rounding modes as frm has them


@dataclass(frozen=True)
class Format:
    """A binary interchange format: sign, then biased exponent, then fraction (IEEE 754-2019, 3.4)."""

    width: int
    fraction: int  # bits that are stored, without the leading one

    @property
    def exponent(self) -> int:
        """Bits of the biased exponent."""
        return self.width - 1 - self.fraction

    @property
    def bias(self) -> int:
        """What the exponent field holds for the value 1."""
        return (1 << (self.exponent - 1)) - 1

    @property
    def exponent_ones(self) -> int:
        """The exponent field of infinities and NaNs."""
        return (1 << self.exponent) - 1

    @property
    def sign(self) -> int:
        """The sign bit's mask."""
        return 1 << (self.width - 1)

    @property
    def infinity(self) -> int:
        """Positive infinity's bits."""
        return self.exponent_ones << self.fraction

    @property
    def quiet(self) -> int:
        """The bit that tells a quiet NaN from a signalling one."""
        return 1 << (self.fraction - 1)

    @property
    def nan(self) -> int:
        """The canonical NaN: positive, quiet, nothing else."""
        return self.infinity | self.quiet

    @property
    def smallest_normal(self) -> int:
        """The bits of the smallest positive normal number."""
        return 1 << self.fraction


FORMATS = {32: Format(32, 23), 64: Format(64, 52)}
