"""IEEE 754 arithmetic over abstract values, in integers alone, with RISC-V's NaN rules (Unprivileged ISA, 20, 21).

`routine_for("add", 64)` is the routine that adds two doubles: it takes the operands' bit patterns and a rounding mode
(3 bits, 0 to 4) and gives the result's bit pattern and the flags it raises (5 bits). NaN results are canonical,
tininess is detected after rounding, conversions to integers saturate.

This is the definition that everything faster is compared with, and what runs where the host's unit cannot do the work,
so it is made to be small rather than fast. Both formats share their middle: a finite number is unpacked to a sign, an
exponent and 64 bits of significand, and every result is rounded from that form once, by one routine a format. Sums and
products are the fused operation with a one or a zero put in; quotients and roots are made bit by bit. Nothing wider
than 128 bits occurs, and no division, so that a compiler needs no library for any of it.

A finite number's value is (-1)**sign * significand * 2**(exponent - 63), with the significand's top bit set unless the
number is zero. Where bits of a significand are lost, its lowest bit remembers that they were not zero ("sticky"): it
is far enough below the last bit of either format to stand for them in every rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from celaje.isa.semantics import Routine, Value

NV, DZ, OF, UF, NX = 16, 8, 4, 2, 1  # the accrued exception flags as fflags has them
RNE, RTZ, RDN, RUP, RMM = range(5)  # the rounding modes as frm has them

ZERO_EXPONENT = -8192  # of a zero: far below any other, also in a product of two of them


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


# ---- pieces of meaning


def _sticky_shift(value: Value, distance: Value) -> Value:
    """Shifted right by 0 to width - 1; the lowest bit is also set if a set bit was lost."""
    shifted = value >> distance
    return shifted | (shifted << distance).ne(value).zext(value.width)


def _at_most(value: Value, limit: int) -> Value:
    """The smaller of the two, unsigned."""
    return value.above(limit).select(limit, value)


def _upper_half(value: Value) -> Value:
    """The upper half of the bits, sticky."""
    half = value.width // 2
    return value.bits(value.width - 1, half) | value.trunc(half).ne(0).zext(half)


def _normal(value: Value) -> tuple[Value, Value]:
    """Shifted left until the top bit is set, and by how much; a zero stays one."""
    distance = value.leading_zeros() & (value.width - 1)
    return value << distance, distance.trunc(16)


def _goes_up(rounding: Value, sign: Value, odd: Value, remainder: Value, half: int) -> Value:
    """Whether a magnitude is rounded to the next one: `remainder` is what is cut off, `odd` the last bit that stays."""
    to_nearest = remainder.above(half) | (remainder.eq(half) & (odd | rounding.eq(RMM)))
    outward = remainder.ne(0) & ((rounding.eq(RDN) & sign) | (rounding.eq(RUP) & ~sign))
    return (rounding.eq(RNE) | rounding.eq(RMM)).select(to_nearest, outward)


@dataclass(frozen=True)
class Number:
    """An operand's bits and what can be told from them; all but `bits` are conditions."""

    bits: Value
    sign: Value
    nan: Value
    signalling: Value
    infinite: Value
    zero: Value

    @classmethod
    def of(cls, bits: Value) -> Number:
        form = FORMATS[bits.width]
        magnitude = bits & ~form.sign
        nan = magnitude.above(form.infinity)
        signalling = nan & (bits & form.quiet).eq(0)
        return cls(bits, bits.less(0), nan, signalling, magnitude.eq(form.infinity), magnitude.eq(0))

    def unpacked(self, h: Any) -> tuple[Value, Value]:
        """Exponent (16 bits, signed) and significand (64 bits) of a finite number."""
        exponent, significand = h.call(_unpack(self.bits.width), self.bits)
        return exponent, significand


def _signed(sign: Value, magnitude: int, form: Format) -> Value:
    """A constant with a sign."""
    return (sign.zext(form.width) << (form.width - 1)) | magnitude


# ---- routines that all operations share


@cache
def _unpack(width: int) -> Routine:
    form = FORMATS[width]

    def unpack(h: Any, bits: Value) -> None:
        fraction = (bits & (form.smallest_normal - 1)).zext(64) << (63 - form.fraction)
        field = bits.bits(width - 2, form.fraction).zext(16)
        with h.when(field.ne(0)):
            h.give(field - form.bias, fraction | (1 << 63))
        significand, distance = _normal(fraction)
        h.give(fraction.eq(0).select(ZERO_EXPONENT, 1 - form.bias - distance), significand)

    return Routine(f"float_unpack_{width}", unpack, (width,), (16, 64))


@cache
def _round(width: int) -> Routine:
    """Sign, exponent, significand and rounding mode make a number and its flags."""
    form = FORMATS[width]
    cut = 63 - form.fraction
    low = (1 << cut) - 1
    half = 1 << (cut - 1)

    def pack(h: Any, sign: Value, exponent: Value, significand: Value, rounding: Value) -> None:
        biased = exponent + form.bias
        below_normal = biased.less(1)
        distance = below_normal.select(_at_most(1 - biased, 63), 0)
        shifted = _sticky_shift(significand, distance.zext(64))
        kept, remainder = shifted >> cut, shifted & low
        inexact = remainder.ne(0)
        up = _goes_up(rounding, sign, kept.bit(0), remainder, half)
        # The significand's leading one adds itself to the exponent field, and so does a carry out of the fraction.
        magnitude = (below_normal.select(0, biased - 1).zext(64) << form.fraction) + kept + up.zext(64)
        # Tiny after rounding: it would be below the smallest normal number were there no end to exponents.
        carries = (significand >> cut).eq(2 * form.smallest_normal - 1) & _goes_up(
            rounding, sign, significand.bit(cut), significand & low, half
        )
        tiny = below_normal & ~(biased.eq(0) & carries)
        overflow = biased.greater_equal(form.exponent_ones) | magnitude.at_least(form.infinity)
        inward = rounding.eq(RTZ) | (rounding.eq(RDN) & ~sign) | (rounding.eq(RUP) & sign)
        magnitude = overflow.select(form.infinity - inward.zext(64), magnitude)
        flags = inexact.select(tiny.select(UF | NX, NX, width=5), 0)
        h.give(_signed(sign, 0, form) | magnitude.trunc(width), overflow.select(OF | NX, flags))

    return Routine(f"float_round_{width}", pack, (1, 16, 64, 3), (width, 5))


def _fused_finite(
    h: Any,
    product_sign: Value,
    a_exponent: Value,
    a: Value,
    b_exponent: Value,
    b: Value,
    c_sign: Value,
    c_exponent: Value,
    c: Value,
    rounding: Value,
) -> None:
    """Sign, exponent and significand of a * b + c.

    Both summands stand in 128 bits, top bit at 126 so that their sum has room. The one of less magnitude is moved
    right. If by two places or more, at most one leading bit can cancel, and what falls out of the other end is sticky;
    if by less, nothing falls out, since products have 106 bits at most.
    """
    product = (a >> 1).zext(128) * b.zext(128)
    short = product.below(1 << 126)
    p = short.select(product << 1, product)
    p_exponent = a_exponent + b_exponent + short.select(0, 1, width=16)
    wide = c.zext(128) << 63
    c_greater = p_exponent.less(c_exponent) | (p_exponent.eq(c_exponent) & p.below(wide))
    greater, lesser = c_greater.select(wide, p), c_greater.select(p, wide)
    exponent = c_greater.select(c_exponent, p_exponent)
    distance = exponent - c_greater.select(p_exponent, c_exponent)
    lesser = _sticky_shift(lesser, _at_most(distance, 127).zext(128))
    same = product_sign.eq(c_sign)
    total = same.select(greater + lesser, greater - lesser)
    significand, up = _normal(total)
    # A zero out of different signs is positive, but negative where rounding is downwards (IEEE 754-2019, 6.3).
    zero_sign = same.select(product_sign, rounding.eq(RDN))
    sign = total.eq(0).select(zero_sign, c_greater.select(c_sign, product_sign))
    h.give(sign, total.eq(0).select(ZERO_EXPONENT, exponent + 1 - up), _upper_half(significand))


FUSED_FINITE = Routine("float_fused_finite", _fused_finite, (1, 16, 64, 16, 64, 1, 16, 64, 3), (1, 16, 64))


def _quotient(h: Any, a: Value, b: Value, count: Value) -> None:
    """`count` bits of a / b for a in [b, 2 * b), top bit first; one more, sticky, says whether there is a remainder."""
    remainder, quotient = h.variable(a), h.variable(0, 64)
    with h.count(count):
        now = remainder.get()
        fits = now.at_least(b)
        remainder.set(fits.select(now - b, now) << 1)
        quotient.set((quotient.get() << 1) | fits.zext(64))
    h.give((quotient.get() << 1) | remainder.get().ne(0).zext(64))


QUOTIENT = Routine("float_quotient", _quotient, (64, 64, 8), (64,))


def _root(h: Any, a: Value, count: Value) -> None:
    """`count` bits of the square root of `a`, which has two bits before its point; one more is sticky, as above.

    Two bits come down at a time; the next bit of the root is set where (2 * root + 1) still fits.
    """
    coming, remainder, root = h.variable(a), h.variable(0, 64), h.variable(0, 64)
    with h.count(count):
        now = (remainder.get() << 2) | (coming.get() >> 62)
        coming.set(coming.get() << 2)
        trial = (root.get() << 2) | 1
        fits = now.at_least(trial)
        remainder.set(fits.select(now - trial, now))
        root.set((root.get() << 1) | fits.zext(64))
    h.give((root.get() << 1) | remainder.get().ne(0).zext(64))


ROOT = Routine("float_root", _root, (64, 8), (64,))


def _magnitude(h: Any, sign: Value, exponent: Value, significand: Value, rounding: Value) -> None:
    """A finite number rounded to an integer: its magnitude, whether that needs more than 64 bits, whether inexact."""
    too_great = exponent.greater_equal(64)
    distance = too_great.select(0, _at_most(63 - exponent, 127))
    fixed = _sticky_shift(significand.zext(128) << 64, distance.zext(128))
    kept, remainder = fixed.bits(127, 64), fixed.trunc(64)
    up = _goes_up(rounding, sign, kept.bit(0), remainder, 1 << 63)
    h.give(kept + up.zext(64), too_great, remainder.ne(0))


MAGNITUDE = Routine("float_magnitude", _magnitude, (1, 16, 64, 3), (64, 1, 1))


# ---- operations


def _fused(width: int) -> Callable[..., None]:
    form = FORMATS[width]

    def fused(h: Any, a_bits: Value, b_bits: Value, c_bits: Value, rounding: Value) -> None:
        a, b, c = Number.of(a_bits), Number.of(b_bits), Number.of(c_bits)
        sign = a.sign ^ b.sign
        nan = a.nan | b.nan | c.nan
        product_infinite = (a.infinite | b.infinite) & ~a.nan & ~b.nan
        invalid = a.signalling | b.signalling | c.signalling
        # Infinity times zero is invalid even where a quiet NaN is added; IEEE 754 leaves that open, RISC-V does not.
        invalid = invalid | (a.infinite & b.zero) | (a.zero & b.infinite)
        invalid = invalid | (product_infinite & c.infinite & (sign ^ c.sign))
        with h.when(nan | invalid):
            h.give(form.nan, invalid.select(NV, 0, width=5))
        with h.when(product_infinite | c.infinite):
            h.give(_signed(product_infinite.select(sign, c.sign), form.infinity, form), 0)
        finite = h.call(FUSED_FINITE, sign, *a.unpacked(h), *b.unpacked(h), c.sign, *c.unpacked(h), rounding)
        h.give(*h.call(_round(width), *finite, rounding))

    return fused


def _add(width: int) -> Callable[..., None]:
    form = FORMATS[width]
    one = form.bias << form.fraction

    def add(h: Any, a: Value, b: Value, rounding: Value) -> None:
        h.give(*h.call(routine_for("fused", width), a, one, b, rounding))

    return add


def _subtract(width: int) -> Callable[..., None]:
    def subtract(h: Any, a: Value, b: Value, rounding: Value) -> None:
        h.give(*h.call(routine_for("add", width), a, b ^ FORMATS[width].sign, rounding))

    return subtract


def _multiply(width: int) -> Callable[..., None]:
    def multiply(h: Any, a: Value, b: Value, rounding: Value) -> None:
        # A zero of the product's own sign changes no product, zeros included.
        h.give(*h.call(routine_for("fused", width), a, b, (a ^ b) & FORMATS[width].sign, rounding))

    return multiply


def _divide(width: int) -> Callable[..., None]:
    form = FORMATS[width]
    count = form.fraction + 3

    def divide(h: Any, a_bits: Value, b_bits: Value, rounding: Value) -> None:
        a, b = Number.of(a_bits), Number.of(b_bits)
        sign = a.sign ^ b.sign
        invalid = a.signalling | b.signalling | (a.infinite & b.infinite) | (a.zero & b.zero)
        with h.when(a.nan | b.nan | invalid):
            h.give(form.nan, invalid.select(NV, 0, width=5))
        with h.when(a.infinite | b.zero):
            h.give(_signed(sign, form.infinity, form), a.infinite.select(0, DZ, width=5))
        with h.when(a.zero | b.infinite):
            h.give(_signed(sign, 0, form), 0)
        a_exponent, a_significand = a.unpacked(h)
        b_exponent, b_significand = b.unpacked(h)
        below = a_significand.below(b_significand)
        # One bit of room for the remainder's doubling; the lowest bit of an operand is never set.
        dividend = below.select(a_significand, a_significand >> 1)
        (quotient,) = h.call(QUOTIENT, dividend, b_significand >> 1, count)
        exponent = a_exponent - b_exponent - below.zext(16)
        h.give(*h.call(_round(width), sign, exponent, quotient << (63 - count), rounding))

    return divide


def _square_root(width: int) -> Callable[..., None]:
    form = FORMATS[width]
    count = form.fraction + 3

    def square_root(h: Any, a_bits: Value, rounding: Value) -> None:
        a = Number.of(a_bits)
        invalid = a.signalling | (a.sign & ~a.zero & ~a.nan)
        with h.when(a.nan | invalid):
            h.give(form.nan, invalid.select(NV, 0, width=5))
        with h.when(a.zero | a.infinite):
            h.give(a_bits, 0)
        exponent, significand = a.unpacked(h)
        (root,) = h.call(ROOT, exponent.bit(0).select(significand, significand >> 1), count)
        h.give(*h.call(_round(width), a.sign, exponent.sra(1), root << (63 - count), rounding))

    return square_root


def _to_format(width: int, target: int) -> Callable[..., None]:
    form = FORMATS[target]

    def to_format(h: Any, a_bits: Value, rounding: Value) -> None:
        a = Number.of(a_bits)
        with h.when(a.nan):
            h.give(form.nan, a.signalling.select(NV, 0, width=5))
        with h.when(a.infinite):
            h.give(_signed(a.sign, form.infinity, form), 0)
        h.give(*h.call(_round(target), a.sign, *a.unpacked(h), rounding))

    return to_format


def _to_integer(width: int, bits: int, signed: bool) -> Callable[..., None]:
    """Out of range is the nearest end of it and NV alone; so are infinities, and a NaN is like the positive one."""
    greatest = (1 << (bits - 1 if signed else bits)) - 1
    least = (1 << (bits - 1)) if signed else 0  # its magnitude

    def to_integer(h: Any, a_bits: Value, rounding: Value) -> None:
        a = Number.of(a_bits)
        magnitude, too_great, inexact = h.call(MAGNITUDE, a.sign, *a.unpacked(h), rounding)
        beyond = too_great | a.sign.select(magnitude.above(least), magnitude.above(greatest))
        with h.when(a.nan | a.infinite | beyond):
            h.give((a.sign & ~a.nan).select(least, greatest, width=bits), NV)
        value = magnitude.trunc(bits)
        h.give(a.sign.select(-value, value), inexact.select(NX, 0, width=5))

    return to_integer


def _from_integer(bits: int, target: int, signed: bool) -> Callable[..., None]:
    def from_integer(h: Any, a: Value, rounding: Value) -> None:
        sign = a.less(0) if signed else h.constant(0, 1)
        magnitude = sign.select(-a, a).zext(64)
        significand, distance = _normal(magnitude)
        exponent = magnitude.eq(0).select(ZERO_EXPONENT, 63 - distance)
        h.give(*h.call(_round(target), sign, exponent, significand, rounding))

    return from_integer


def _arithmetic(operation: str, width: int) -> tuple[Callable[..., None], int, int]:
    """The function, how many operands of `width` bits it takes, and its result's width."""
    match operation.split("_"):
        case ["add"]:
            return _add(width), 2, width
        case ["subtract"]:
            return _subtract(width), 2, width
        case ["multiply"]:
            return _multiply(width), 2, width
        case ["divide"]:
            return _divide(width), 2, width
        case ["square", "root"]:
            return _square_root(width), 1, width
        case ["fused"]:
            return _fused(width), 3, width
        case ["to", target]:
            return _to_format(width, int(target)), 1, int(target)
        case ["to", ("signed" | "unsigned") as kind, bits]:
            return _to_integer(width, int(bits), kind == "signed"), 1, int(bits)
        case ["from", ("signed" | "unsigned") as kind, target]:
            return _from_integer(width, int(target), kind == "signed"), 1, int(target)
    raise ValueError(f"no floating-point operation is called {operation!r}")


@cache
def routine_for(operation: str, width: int) -> Routine:
    """The routine for one of `Semantics.float_operation`'s operations on operands of `width` bits (32 or 64).

    Its parameters are the operands and the rounding mode (3 bits, 0 to 4), its results the value and 5 bits of flags.
    """
    function, operands, result = _arithmetic(operation, width)
    return Routine(f"float_{operation}_of_{width}", function, (width,) * operands + (3,), (result, 5))
