/* What a program for a Linux guest needs of Linux, without a C library: system calls, a start, one line of report. */
#ifndef LINUX_H
#define LINUX_H

#include "../report.h"

#define O_RDONLY 0
#define O_RDWR 2
#define O_DIRECT 040000
#define AT_FDCWD (-100)
#define PROT_READ_WRITE 3
#define MAP_SHARED_ANONYMOUS 0x21
#define MAP_PRIVATE_ANONYMOUS 0x22
#define SIGCHLD 17

enum { SYS_ioctl = 29, SYS_openat = 56, SYS_close = 57, SYS_write = 64, SYS_pread64 = 67, SYS_pwrite64 = 68, SYS_fdatasync = 83,
       SYS_exit_group = 94, SYS_clone = 220, SYS_mmap = 222, SYS_wait4 = 260 };

static inline i64 linux_call(i64 number, i64 first, i64 second, i64 third, i64 fourth, i64 fifth, i64 sixth)
{
    register i64 a7 __asm__("a7") = number;
    register i64 a0 __asm__("a0") = first;
    register i64 a1 __asm__("a1") = second;
    register i64 a2 __asm__("a2") = third;
    register i64 a3 __asm__("a3") = fourth;
    register i64 a4 __asm__("a4") = fifth;
    register i64 a5 __asm__("a5") = sixth;

    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return a0;
}

/* Whole pages of zeros; `kind`: MAP_SHARED_ANONYMOUS is shared with the children that `fork` makes. */
void *memory(u64 size, int kind);
/* A child in a copy of this process: 0 in it, its number in the parent. */
i64 fork(void);
u64 number_from(const char *text);
/* Ends the program with a line on the terminal unless `right`. */
void must(int right, const char *what);
int main(int count, char **words);

#endif
