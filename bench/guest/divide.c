/* Multiplication and division: modular powers and greatest common divisors of 64-bit numbers. */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 2000000
#endif

static u64 power(u64 base, u64 exponent, u64 modulus)
{
    u64 result = 1;

    for (base %= modulus; exponent; exponent >>= 1) {
        if (exponent & 1)
            result = result * base % modulus;
        base = base * base % modulus;
    }
    return result;
}

static u64 divisor(u64 a, u64 b)
{
    while (b) {
        u64 rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int main(void)
{
    u64 sum = 0, seed = 88172645463325252ul, start = ticks();

    for (u64 i = 0; i < ITERATIONS; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        sum += power(seed, 65537, 4294967291ul) + divisor(seed, sum | 1);
    }
    report("divide", ITERATIONS, ticks() - start, sum);
    return 0;
}
