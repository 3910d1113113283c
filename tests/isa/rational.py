"""IEEE 754 with RISC-V's rules in exact rational arithmetic: what the product's floating point is compared with.

Nothing here is shared with the product. Bit patterns in, (bit pattern, flags) out.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

NV, DZ, OF, UF, NX = 16, 8, 4, 2, 1
RNE, RTZ, RDN, RUP, RMM = range(5)
FRACTION_BITS = {32: 23, 64: 52}
EMIN = {32: -126, 64: -1022}
EMAX = {32: 127, 64: 1023}
CANONICAL_NAN = {32: 0x7FC00000, 64: 0x7FF8000000000000}
INFINITY = {32: 0x7F800000, 64: 0x7FF0000000000000}

Result = tuple[int, int]


@dataclass(frozen=True)
class Datum:
    """What a bit pattern stands for; `value` is 0 for infinities and NaNs."""

    negative: bool
    nan: bool
    signalling: bool
    infinite: bool
    value: Fraction

    @property
    def zero(self) -> bool:
        return not self.nan and not self.infinite and self.value == 0


def datum(bits: int, width: int) -> Datum:
    negative = bool(bits >> (width - 1))
    fraction_bits = FRACTION_BITS[width]
    fraction = bits & ((1 << fraction_bits) - 1)
    exponent = (bits & ~(1 << (width - 1))) >> fraction_bits
    if exponent == INFINITY[width] >> fraction_bits:
        signalling = fraction != 0 and not fraction >> (fraction_bits - 1)
        return Datum(negative, fraction != 0, signalling, fraction == 0, Fraction(0))
    if exponent:
        fraction |= 1 << fraction_bits
    magnitude = Fraction(fraction) * Fraction(2) ** (max(exponent, 1) - 1 + EMIN[width] - fraction_bits)
    return Datum(negative, False, False, False, -magnitude if negative else magnitude)


def integral(value: Fraction, rounding: int) -> int:
    """The integer that `value` rounds to."""
    floor = math.floor(value)
    rest = value - floor
    if rest == 0 or rounding == RDN:
        return floor
    if rounding == RUP:
        return floor + 1
    if rounding == RTZ:
        return floor if value > 0 else floor + 1
    if rest != Fraction(1, 2):
        return floor + (rest > Fraction(1, 2))
    if rounding == RNE:
        return floor + (floor & 1)
    return floor + 1 if value > 0 else floor


def power_at_or_below(value: Fraction) -> int:
    """The greatest e with 2**e <= value, for a positive value."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def rounded(value: Fraction, width: int, rounding: int, negative_zero: bool = False) -> Result:
    """The number of that format for an exact value; an exact zero has the sign that is asked for."""
    top = 1 << (width - 1)
    if value == 0:
        return (top if negative_zero else 0), 0
    sign = top if value < 0 else 0
    precision = FRACTION_BITS[width]
    exponent = power_at_or_below(abs(value))

    def at(exponent: int) -> Fraction:
        ulp = Fraction(2) ** (exponent - precision)
        return integral(value / ulp, rounding) * ulp

    unbounded = at(exponent)
    if abs(unbounded) >= Fraction(2) ** (EMAX[width] + 1):
        away = rounding in (RNE, RMM) or (rounding == RUP and value > 0) or (rounding == RDN and value < 0)
        return sign | (INFINITY[width] if away else INFINITY[width] - 1), OF | NX
    tiny = abs(unbounded) < Fraction(2) ** EMIN[width]
    result = abs(at(max(exponent, EMIN[width])))
    flags = 0 if result == abs(value) else NX | (UF if tiny else 0)
    if result < Fraction(2) ** EMIN[width]:
        return sign | int(result / Fraction(2) ** (EMIN[width] - precision)), flags
    exponent = power_at_or_below(result)
    significand = int(result / Fraction(2) ** (exponent - precision))
    return sign | ((exponent - EMIN[width]) << precision) + significand, flags


def _nan(width: int, *operands: Datum, invalid: bool = False) -> Result:
    return CANONICAL_NAN[width], NV if invalid or any(d.signalling for d in operands) else 0


def _infinity(width: int, negative: bool, flags: int = 0) -> Result:
    return INFINITY[width] | (negative << (width - 1)), flags


def fused(a_bits: int, b_bits: int, c_bits: int, width: int, rounding: int) -> Result:
    a, b, c = (datum(bits, width) for bits in (a_bits, b_bits, c_bits))
    if (a.infinite and b.zero) or (a.zero and b.infinite):
        return _nan(width, invalid=True)
    if a.nan or b.nan or c.nan:
        return _nan(width, a, b, c)
    negative = a.negative != b.negative
    if a.infinite or b.infinite:
        return _nan(width, invalid=True) if c.infinite and c.negative != negative else _infinity(width, negative)
    if c.infinite:
        return _infinity(width, c.negative)
    same = negative == c.negative
    return rounded(a.value * b.value + c.value, width, rounding, negative if same else rounding == RDN)


def add(a_bits: int, b_bits: int, width: int, rounding: int) -> Result:
    a, b = datum(a_bits, width), datum(b_bits, width)
    if a.nan or b.nan:
        return _nan(width, a, b)
    if a.infinite and b.infinite and a.negative != b.negative:
        return _nan(width, invalid=True)
    if a.infinite or b.infinite:
        return _infinity(width, a.negative if a.infinite else b.negative)
    return rounded(a.value + b.value, width, rounding, a.negative if a.negative == b.negative else rounding == RDN)


def subtract(a_bits: int, b_bits: int, width: int, rounding: int) -> Result:
    return add(a_bits, b_bits ^ (1 << (width - 1)), width, rounding)


def multiply(a_bits: int, b_bits: int, width: int, rounding: int) -> Result:
    a, b = datum(a_bits, width), datum(b_bits, width)
    if a.nan or b.nan:
        return _nan(width, a, b)
    if (a.infinite and b.zero) or (a.zero and b.infinite):
        return _nan(width, invalid=True)
    negative = a.negative != b.negative
    if a.infinite or b.infinite:
        return _infinity(width, negative)
    return rounded(a.value * b.value, width, rounding, negative)


def divide(a_bits: int, b_bits: int, width: int, rounding: int) -> Result:
    a, b = datum(a_bits, width), datum(b_bits, width)
    if a.nan or b.nan:
        return _nan(width, a, b)
    if (a.infinite and b.infinite) or (a.zero and b.zero):
        return _nan(width, invalid=True)
    negative = a.negative != b.negative
    if a.infinite or b.zero:
        return _infinity(width, negative, 0 if a.infinite else DZ)
    if b.infinite:
        return rounded(Fraction(0), width, rounding, negative)
    return rounded(a.value / b.value, width, rounding, negative)


def square_root(a_bits: int, width: int, rounding: int) -> Result:
    a = datum(a_bits, width)
    if a.nan:
        return _nan(width, a)
    if a.zero:
        return a_bits, 0
    if a.negative:
        return _nan(width, invalid=True)
    if a.infinite:
        return _infinity(width, False)
    # 400 bits after the point, and one beyond them where that is not all.
    scaled = a.value * Fraction(4) ** 1400
    root = math.isqrt(int(scaled))
    exact = Fraction(root * root) == scaled
    return rounded(Fraction(2 * root + (not exact), 2) / Fraction(2) ** 1400, width, rounding)


def to_format(a_bits: int, width: int, target: int, rounding: int) -> Result:
    a = datum(a_bits, width)
    if a.nan:
        return _nan(target, a)
    return _infinity(target, a.negative) if a.infinite else rounded(a.value, target, rounding, a.negative)


def to_integer(a_bits: int, width: int, bits: int, signed: bool, rounding: int) -> Result:
    a = datum(a_bits, width)
    least, greatest = (-1 << (bits - 1), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    mask = (1 << bits) - 1
    if a.nan or a.infinite:
        return (least if a.negative and not a.nan else greatest) & mask, NV
    value = integral(a.value, rounding)
    if not least <= value <= greatest:
        return (least if value < least else greatest) & mask, NV
    return value & mask, 0 if value == a.value else NX


def from_integer(a: int, bits: int, target: int, signed: bool, rounding: int) -> Result:
    if signed and a >> (bits - 1):
        a -= 1 << bits
    return rounded(Fraction(a), target, rounding)


def expected(operation: str, width: int, operands: tuple[int, ...], rounding: int) -> Result:
    """By the names of `Semantics.float_operation`; `width` is the operands'."""
    arithmetic: dict[str, Callable[..., Result]] = {
        "add": add,
        "subtract": subtract,
        "multiply": multiply,
        "divide": divide,
        "square_root": square_root,
        "fused": fused,
    }
    if operation in arithmetic:
        return arithmetic[operation](*operands, width, rounding)
    match operation.split("_"):
        case ["to", target]:
            return to_format(operands[0], width, int(target), rounding)
        case ["to", kind, bits]:
            return to_integer(operands[0], width, int(bits), kind == "signed", rounding)
        case ["from", kind, target]:
            return from_integer(operands[0], width, int(target), kind == "signed", rounding)
    raise ValueError(operation)


OPERATIONS: tuple[tuple[str, int, int], ...] = (
    *((name, width, 2) for name in ("add", "subtract", "multiply", "divide") for width in (32, 64)),
    *(("square_root", width, 1) for width in (32, 64)),
    *(("fused", width, 3) for width in (32, 64)),
    ("to_32", 64, 1),
    ("to_64", 32, 1),
    *((f"to_{kind}_{bits}", width, 1) for kind in ("signed", "unsigned") for bits in (32, 64) for width in (32, 64)),
    *((f"from_{kind}_{to}", bits, 1) for kind in ("signed", "unsigned") for bits in (32, 64) for to in (32, 64)),
)
"""Every operation: its name, its operands' width and how many they are."""


def edges(width: int) -> list[int]:
    """Bit patterns at which floating point goes wrong, both signs."""
    precision, top = FRACTION_BITS[width], 1 << (width - 1)
    one = EMAX[width] << precision
    least_normal = 1 << precision
    largest = INFINITY[width] - 1
    quiet = CANONICAL_NAN[width]
    positive = [0, 1, 2, 3, least_normal - 1, least_normal, least_normal + 1, 2 * least_normal, 3 * least_normal // 2]
    positive += [one - 1, one, one + 1, one + least_normal // 2, one - least_normal, one + least_normal]
    positive += [one + (k << precision) + d for k in (30, 31, 32, 62, 63, 64) for d in (-1, 0, 1)]
    positive += [largest - 1, largest, largest - least_normal, INFINITY[width]]
    positive += [INFINITY[width] + 1, quiet - 1, quiet, quiet + 1, top - 1]
    return [bits | sign for bits in positive for sign in (0, top)]


def interesting(random_: random.Random, width: int, integer: bool = False) -> int:
    """One operand: an edge, a number near 1 with a short fraction, a random exponent, or random bits."""
    top = 1 << (width - 1)
    if integer:
        if random_.random() < 0.4:  # so long that it is rounded, and often half-way or next to it
            cut = width - 1 - FRACTION_BITS[random_.choice((32, 64)) if width == 64 else 32]
            value = random_.getrandbits(width) | top
            value = (value & (-1 << cut)) + (1 << (cut - 1)) + random_.choice((-1, 0, 0, 1))
            return (value >> random_.choice((0, 0, 1, 3))) & (2 * top - 1)
        value = random_.getrandbits(width) >> random_.randrange(width)
        value += random_.choice((0, 0, (1 << random_.randrange(width)) - random_.randrange(3)))
        return (value if random_.random() < 0.5 else -value) & (2 * top - 1)
    kind = random_.randrange(8)
    if kind < 2:
        return random_.choice(edges(width))
    if kind == 2:
        return random_.getrandbits(width)
    precision = FRACTION_BITS[width]
    near = random_.choice((0, 0, 1, precision, precision + 12, EMAX[width] - 1, EMAX[width] // 2))
    exponent = min(max(EMAX[width] + random_.randint(-near, near), 0), 2 * EMAX[width])
    fraction = random_.getrandbits(precision)
    shape = random_.randrange(4)
    if shape == 0:
        fraction &= -1 << random_.randrange(precision)
    elif shape == 1:
        fraction |= (1 << random_.randrange(precision)) - 1
    elif shape == 2:
        fraction = (1 << random_.randrange(precision)) ^ (1 << random_.randrange(precision))
    return random_.choice((0, top)) | (exponent << precision) | fraction


def directed(operation: str, width: int, operands: int) -> Iterator[tuple[int, ...]]:
    """Every combination of classes, and what rounds to the smallest normal number from below."""
    top, least_normal, one = 1 << (width - 1), 1 << FRACTION_BITS[width], EMAX[width] << FRACTION_BITS[width]
    quiet, infinity = CANONICAL_NAN[width], INFINITY[width]
    classes = (0, top, one, one | top, infinity, infinity | top, quiet + 5, infinity + 5)
    yield from itertools.product(classes, repeat=operands)
    for by in (1, 2, 3, 1000):
        match operation:
            case "multiply":
                yield one + by, least_normal - by
            case "fused":
                yield one + by, least_normal - by, 0
                yield one + by, top | (least_normal - by), top | 1
            case "divide":
                yield least_normal - by, one - 2 * by
                yield least_normal - by, one - by
            case "to_32":
                yield (((EMAX[64] + EMIN[32]) << FRACTION_BITS[64]) - by,)
                yield (top | ((EMAX[64] + EMIN[32]) << FRACTION_BITS[64]) - (by << 28),)


def cases(random_: random.Random, operation: str, width: int, operands: int, count: int) -> Iterator[tuple[int, ...]]:
    """Operand tuples: every edge once with random company, then `count` drawn ones, some of them related."""
    integer = operation.startswith("from_")
    if not integer:
        yield from directed(operation, width, operands)
        for edge in edges(width):
            chosen = [edge, *(random_.choice(edges(width)) for _ in range(operands - 1))]
            random_.shuffle(chosen)
            yield tuple(chosen)
    for _ in range(count):
        drawn = [interesting(random_, width, integer) for _ in range(operands)]
        if operands > 1 and random_.random() < 0.2:  # sums that cancel, quotients near one
            drawn[-1] = (drawn[0] ^ random_.choice((0, 1 << (width - 1)))) + random_.choice((0, 0, 1, 2))
            drawn[-1] &= (1 << width) - 1
        if operands == 3 and random_.random() < 0.3:  # an addend that all but undoes the product
            product, _ = multiply(drawn[0], drawn[1], width, random_.randrange(5))
            drawn[2] = (product ^ (1 << (width - 1))) + random_.choice((0, 0, 1)) & ((1 << width) - 1)
        yield tuple(drawn)
