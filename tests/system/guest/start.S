# Machine mode, hart 0, at 0x80000000: a stack, then main.
    .section .text.start
    .globl _start
_start:
    csrr    t0, mhartid
    bnez    t0, 1f
    la      sp, stack_end
    call    main
1:  wfi
    j       1b

    .bss
    .align  4
    .space  0x4000
stack_end:
