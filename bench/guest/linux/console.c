/* A terminal's speed: console TERMINAL BYTES NAME. Writes lines of 64 bytes, 4 KiB at a time, and waits until they are out. */
#include "linux.h"

#define BLOCK 4096ul
#define TCSBRK 0x5409

int main(int count, char **words)
{
    char *block = memory(BLOCK, MAP_PRIVATE_ANONYMOUS);
    u64 bytes, started;
    i64 file;

    must(count == 4, "use: console TERMINAL BYTES NAME");
    bytes = number_from(words[2]);
    for (u64 at = 0; at < BLOCK; at++)
        block[at] = at % 64 == 63 ? '\n' : '.';
    file = linux_call(SYS_openat, AT_FDCWD, (i64)words[1], O_RDWR, 0, 0, 0);
    must(file >= 0, words[1]);
    started = ticks();
    for (u64 done = 0; done < bytes;) {
        i64 written = linux_call(SYS_write, file, (i64)block, BLOCK, 0, 0, 0);
        must(written > 0, "write");
        done += (u64)written;
    }
    must(linux_call(SYS_ioctl, file, TCSBRK, 1, 0, 0, 0) == 0, "drain");
    report(words[3], bytes, ticks() - started, 0);
    return 0;
}
