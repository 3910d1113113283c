#include "report.h"

static volatile u8 *const uart = (volatile u8 *)0x10000000;

static void put(char c)
{
    while (!(uart[5] & 0x20))
        ;
    uart[0] = (u8)c;
}

static void put_text(const char *text)
{
    while (*text)
        put(*text++);
}

static void put_number(u64 n)
{
    char digits[20];
    int count = 0;

    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    put(' ');
    while (count)
        put(digits[--count]);
}

void report(const char *name, u64 iterations, u64 elapsed, u64 checksum)
{
    put_text("RESULT ");
    put_text(name);
    put_number(iterations);
    put_number(elapsed);
    put_number(checksum);
    put_text("\r\n");
}

/* The compiler may call these for copies that it makes itself. */
void *memcpy(void *to, const void *from, u64 n)
{
    u8 *t = to;
    const u8 *f = from;

    while (n--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int value, u64 n)
{
    u8 *t = to;

    while (n--)
        *t++ = (u8)value;
    return to;
}
