/* Integer loops over bytes: the primes below 1,000,000, found again and again. */
#include "report.h"

#define LIMIT 1000000
#ifndef ITERATIONS
#define ITERATIONS 60
#endif

static u8 composite[LIMIT];

static u64 primes(void)
{
    u64 count = 0;

    for (u64 i = 0; i < LIMIT; i++)
        composite[i] = 0;
    for (u64 i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        count++;
        for (u64 j = i * i; j < LIMIT; j += i)
            composite[j] = 1;
    }
    return count;
}

int main(void)
{
    u64 sum = 0, start = ticks();

    for (u64 i = 0; i < ITERATIONS; i++)
        sum += primes();
    report("sieve", ITERATIONS, ticks() - start, sum);
    return 0;
}
