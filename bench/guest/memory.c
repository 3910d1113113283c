/* Memory walks over 16 MiB: a chain of pointers in random order, a stride of a page and a line, a copy by words. */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 6
#endif
#define WORDS (16ul << 20 >> 3)
#define LINKS (WORDS / 8)

static u64 area[WORDS], other[WORDS];

static void chain(void)
{
    u64 seed = 0x9e3779b97f4a7c15ul;

    for (u64 i = 0; i < LINKS; i++)
        area[i * 8] = i;
    for (u64 i = LINKS - 1; i > 0; i--) {  /* Sattolo: one cycle through all of them */
        seed = seed * 6364136223846793005ul + 1442695040888963407ul;
        u64 j = (seed >> 33) % i, kept = area[i * 8];
        area[i * 8] = area[j * 8];
        area[j * 8] = kept;
    }
}

int main(void)
{
    u64 sum = 0, at = 0, start;

    chain();
    start = ticks();
    for (u64 i = 0; i < ITERATIONS * LINKS * 2; i++)
        at = area[at * 8];
    report("memory-chase", ITERATIONS, ticks() - start, at);

    start = ticks();
    for (u64 i = 0; i < ITERATIONS * 64; i++)
        for (u64 j = i & 511; j < WORDS; j += 4096 / 8 + 8)
            sum += area[j]++;
    report("memory-stride", ITERATIONS, ticks() - start, sum);

    start = ticks();
    for (u64 i = 0; i < ITERATIONS * 4; i++)
        for (u64 j = 0; j < WORDS; j += 4) {
            other[j] = area[j];
            other[j + 1] = area[j + 1];
            other[j + 2] = area[j + 2];
            other[j + 3] = area[j + 3] + i;
        }
    report("memory-copy", ITERATIONS, ticks() - start, other[WORDS - 1] + other[0]);
    return 0;
}
