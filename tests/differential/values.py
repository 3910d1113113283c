"""Operands that find mistakes: edges of integers, of both floating-point formats, and of NaN boxing."""

from __future__ import annotations

from random import Random

MASK_32, MASK_64 = (1 << 32) - 1, (1 << 64) - 1
BOX = MASK_64 ^ MASK_32

INTEGERS = [0, 1, 2, 3, 7, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF]
INTEGERS += [1 << 31, (1 << 31) - 1, MASK_32, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 63) - 1, BOX]
INTEGERS += [-value & MASK_64 for value in INTEGERS]


def _special_floats(exponent_bits: int, fraction_bits: int) -> list[int]:
    """Without signs: zero, least and greatest of each class, one and its neighbours, every kind of NaN."""
    infinity = ((1 << exponent_bits) - 1) << fraction_bits
    one = ((1 << (exponent_bits - 1)) - 1) << fraction_bits
    quiet = 1 << (fraction_bits - 1)
    normal = 1 << fraction_bits
    return [
        *(0, 1, 2, normal - 1, normal, normal + 1, 2 * normal, infinity - 1, infinity),
        *(one - 1, one, one + 1, one + normal, one + quiet, one - normal),
        *(infinity | quiet, infinity | quiet | 5, infinity | 1, infinity | (quiet - 1), infinity | quiet >> 1),
    ]


SPECIAL_32, SPECIAL_64 = _special_floats(8, 23), _special_floats(11, 52)


def _float(random: Random, exponent_bits: int, fraction_bits: int, special: list[int]) -> int:
    width = 1 + exponent_bits + fraction_bits
    sign = random.getrandbits(1) << (width - 1)
    kind = random.random()
    bias = (1 << (exponent_bits - 1)) - 1
    zeros_below = random.choice((0, fraction_bits // 2, fraction_bits - 4))
    fraction = random.getrandbits(fraction_bits - zeros_below) << zeros_below
    if kind < 0.4:
        return sign | random.choice(special)
    if kind < 0.6:  # about as large as integers and their limits
        exponent = bias + random.choice((-2, -1, 0, 1, 5, 23, 30, 31, 32, 52, 62, 63, 64))
        return sign | exponent << fraction_bits | fraction
    if kind < 0.7:  # subnormal
        return sign | fraction
    if kind < 0.9:  # near one: sums cancel
        return sign | (bias + random.randint(-3, 3)) << fraction_bits | fraction
    if kind < 0.95:  # one unit beside a power of two
        power = random.randrange(1, (1 << exponent_bits) - 1) << fraction_bits
        return sign | (power + random.randint(-1, 1))
    return random.getrandbits(width)


def double(random: Random) -> int:
    """A 64-bit pattern worth computing with."""
    return _float(random, 11, 52, SPECIAL_64)


def single(random: Random) -> int:
    """A 32-bit pattern worth computing with."""
    return _float(random, 8, 23, SPECIAL_32)


def boxed_single(random: Random) -> int:
    """A single in a 64-bit register; now and then its box is broken."""
    box = BOX if random.random() < 0.9 else random.getrandbits(32) << 32
    return box | single(random)


def integer(random: Random) -> int:
    """A 64-bit integer, on the edge more often than not."""
    kind = random.random()
    if kind < 0.5:
        return random.choice(INTEGERS)
    if kind < 0.7:
        return (1 << random.randrange(64)) + random.randint(-1, 1) & MASK_64
    if kind < 0.85:
        value = random.getrandbits(32)
        return (value ^ 1 << 31) - (1 << 31) & MASK_64
    return random.getrandbits(64)


def register(random: Random) -> int:
    """Anything that a register or 8 bytes of memory may hold."""
    return random.choice((integer, double, boxed_single))(random)
