/* What every guest program shares: a clock, and one line on the UART that says what was done and how long it took. */
#ifndef REPORT_H
#define REPORT_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

/* 10 MHz on the virt board. */
static inline u64 ticks(void)
{
    u64 now;
    __asm__ volatile("rdtime %0" : "=r"(now) : : "memory");
    return now;
}

/* Prints "RESULT name iterations ticks checksum". */
void report(const char *name, u64 iterations, u64 elapsed, u64 checksum);

#endif
