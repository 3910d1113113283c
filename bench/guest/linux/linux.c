#include "linux.h"

__asm__(".globl _start\n_start:\n  .option push\n  .option norelax\n  la gp, __global_pointer$\n  .option pop\n"
        "  mv a0, sp\n  andi sp, sp, -16\n  tail begin\n");

static void print(const char *text)
{
    u64 length = 0;
    while (text[length])
        length++;
    linux_call(SYS_write, 1, (i64)text, (i64)length, 0, 0, 0);
}

__attribute__((noreturn, used)) void begin(i64 *stack)
{
    int status = main((int)stack[0], (char **)(stack + 1));
    for (;;)
        linux_call(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

void must(int right, const char *what)
{
    if (right)
        return;
    print("failed: ");
    print(what);
    print("\n");
    for (;;)
        linux_call(SYS_exit_group, 1, 0, 0, 0, 0, 0);
}

void *memory(u64 size, int kind)
{
    i64 found = linux_call(SYS_mmap, 0, (i64)size, PROT_READ_WRITE, kind, -1, 0);
    must(found > 0 || found < -4095, "memory");
    return (void *)found;
}

i64 fork(void)
{
    return linux_call(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

u64 number_from(const char *text)
{
    u64 number = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        number = number * 10 + (u64)(*text - '0');
    return number;
}

static char *number_to(char *end, u64 number)
{
    do {
        *--end = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    *--end = ' ';
    return end;
}

void report(const char *name, u64 iterations, u64 elapsed, u64 checksum)
{
    char line[128], *at = line + sizeof line - 2;

    line[sizeof line - 1] = 0;
    line[sizeof line - 2] = '\n';
    at = number_to(number_to(number_to(at, checksum), elapsed), iterations);
    print("RESULT ");
    print(name);
    print(at);
}
