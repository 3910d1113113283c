/*
 * A disk under test: disk DEVICE MEBIBYTES OPERATIONS [WORKLOAD].
 *
 * All workloads, or the one that is named. Everything by O_DIRECT, so that each operation is one request of the device: one at a time, then four processes with
 * one each. Each workload is preceded by a short one of its kind that is not counted: both emulators translate code when it is first executed, and that is the
 * boot's and the programs' to measure. The checksums tell whether two emulators moved the same bytes.
 */
#include "linux.h"

#define SEQUENTIAL (1ul << 20)
#define RANDOM 4096ul
#define MANY 4
#define PASSES 4ul
#define WARM_UP 8ul /* a part in so many of a workload goes before it */

static const char *device;
static u64 device_bytes;
static u64 operations;

static int wanted(const char *only, const char *name)
{
    if (!only)
        return 1;
    while (*name && *only == *name)
        only++, name++;
    return *only == *name;
}

static u64 next(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static i64 open_device(int writes)
{
    i64 file = linux_call(SYS_openat, AT_FDCWD, (i64)device, (writes ? O_RDWR : O_RDONLY) | O_DIRECT, 0, 0, 0);
    must(file >= 0, device);
    return file;
}

static void move(i64 file, u64 *buffer, u64 size, u64 at, int writes)
{
    i64 moved = linux_call(writes ? SYS_pwrite64 : SYS_pread64, file, (i64)buffer, (i64)size, (i64)at, 0, 0);
    must(moved == (i64)size, writes ? "write" : "read");
}

static u64 sequential_work(i64 file, u64 *buffer, int writes, u64 count)
{
    u64 checksum = 0;

    for (u64 done = 0; done < count; done++) {
        u64 at = done % (device_bytes / SEQUENTIAL);
        if (writes)
            buffer[0] = done * 0x9e3779b97f4a7c15;
        move(file, buffer, SEQUENTIAL, at * SEQUENTIAL, writes);
        checksum = checksum * 31 + buffer[0];
    }
    if (writes)
        must(linux_call(SYS_fdatasync, file, 0, 0, 0, 0, 0) == 0, "flush");
    return checksum;
}

static void sequential(const char *name, int writes)
{
    i64 file = open_device(writes);
    u64 *buffer = memory(SEQUENTIAL, MAP_PRIVATE_ANONYMOUS);
    u64 checksum, count = PASSES * (device_bytes / SEQUENTIAL), started;

    for (u64 word = 0; word < SEQUENTIAL / 8; word++)
        buffer[word] = word;
    sequential_work(file, buffer, writes, count / WARM_UP);
    started = ticks();
    checksum = sequential_work(file, buffer, writes, count);
    report(name, count, ticks() - started, checksum);
    linux_call(SYS_close, file, 0, 0, 0, 0, 0);
}

static u64 random_work(int writes, u64 seed, u64 count)
{
    i64 file = open_device(writes);
    u64 *buffer = memory(RANDOM, MAP_PRIVATE_ANONYMOUS);
    u64 checksum = 0;

    buffer[1] = seed;
    for (u64 done = 0; done < count; done++) {
        u64 at = next(&seed) % (device_bytes / RANDOM) * RANDOM;
        if (writes)
            buffer[0] = at;
        move(file, buffer, RANDOM, at, writes);
        checksum += buffer[0];
    }
    linux_call(SYS_close, file, 0, 0, 0, 0, 0);
    return checksum;
}

static void random_access(const char *name, int writes, u64 processes)
{
    u64 *checksums = memory(4096, MAP_SHARED_ANONYMOUS);
    u64 checksum = 0, started;

    random_work(writes, 1442695040888963407, operations / WARM_UP);
    started = ticks();
    for (u64 index = 1; index < processes; index++) {
        i64 child = fork();
        must(child >= 0, "fork");
        if (!child) {
            checksums[index] = random_work(writes, 88172645463325252 + index * 977, operations / processes);
            for (;;)
                linux_call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
        }
    }
    checksums[0] = random_work(writes, 88172645463325252, operations / processes);
    for (u64 index = 1; index < processes; index++)
        must(linux_call(SYS_wait4, -1, 0, 0, 0, 0, 0) > 0, "wait");
    for (u64 index = 0; index < processes; index++)
        checksum += checksums[index];
    report(name, operations, ticks() - started, checksum);
}

int main(int count, char **words)
{
    const char *only = count == 5 ? words[4] : 0;

    must(count == 4 || count == 5, "use: disk DEVICE MEBIBYTES OPERATIONS [WORKLOAD]");
    device = words[1];
    device_bytes = number_from(words[2]) << 20;
    operations = number_from(words[3]);
    if (wanted(only, "sequential-write"))
        sequential("sequential-write", 1);
    if (wanted(only, "sequential-read"))
        sequential("sequential-read", 0);
    if (wanted(only, "random-read"))
        random_access("random-read", 0, 1);
    if (wanted(only, "random-write"))
        random_access("random-write", 1, 1);
    if (wanted(only, "random-read-of-4"))
        random_access("random-read-of-4", 0, MANY);
    if (wanted(only, "random-write-of-4"))
        random_access("random-write-of-4", 1, MANY);
    return 0;
}
