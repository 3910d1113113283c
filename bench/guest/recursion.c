/* Calls and returns: Fibonacci numbers the slow way. */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 34
#endif

__attribute__((noinline, optimize("no-optimize-sibling-calls", "no-inline"))) static u64 fibonacci(u64 n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

int main(void)
{
    u64 start = ticks();
    u64 sum = fibonacci(ITERATIONS);

    report("recursion", ITERATIONS, ticks() - start, sum);
    return 0;
}
