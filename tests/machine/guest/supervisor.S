# Two harts under the SBI: hart 0 starts hart 1, which sends it an IPI; a timer goes off; output through UART and DBCN.
    .equ UART, 0x10000000
    .section .text
    .globl _start
_start:
    mv s0, a0
    mv s1, a1
    bnez a0, second

    la a0, hello
    call print

    la t0, trap
    csrw stvec, t0

    # HSM: start hart 1 here, its argument 77
    li a0, 1
    la a1, _start
    li a2, 77
    li a7, 0x48534D
    li a6, 0
    ecall
    bnez a0, fail

    # Wait for its IPI.
    li t0, 2
    csrw sie, t0
1:  la t0, ipis
    lw t0, 0(t0)
    bnez t0, 2f
    wfi                     # interrupts are off: one that came just before still ends it
    csrsi sstatus, 2        # and is taken here
    csrci sstatus, 2
    j 1b
2:
    la a0, got_ipi
    call print

    # TIME: in 1 ms
    li t0, 32
    csrw sie, t0
    csrr a0, time
    li t0, 10000
    add a0, a0, t0
    li a7, 0x54494D45
    li a6, 0
    ecall
    bnez a0, fail
1:  la t0, timers
    lw t0, 0(t0)
    bnez t0, 2f
    wfi
    csrsi sstatus, 2
    csrci sstatus, 2
    j 1b
2:

    # DBCN: write
    li a0, 6
    la a1, timer
    li a2, 0
    li a7, 0x4442434E
    li a6, 0
    ecall
    bnez a0, fail

    # SRST: shut down
    li a0, 0
    li a1, 0
    li a7, 0x53525354
    li a6, 0
    ecall
fail:
    la a0, failed
    call print
1:  j 1b

second:
    li t0, 77
    bne s1, t0, fail
    li a0, 1
    li a1, 0
    li a7, 0x735049
    li a6, 0
    ecall
    # HSM: stop
    li a7, 0x48534D
    li a6, 1
    ecall
    j fail

    .align 2
trap:
    csrr t0, scause
    bgez t0, fail
    andi t0, t0, 0xff
    li t1, 1
    beq t0, t1, 1f
    la t2, timers
    sw t1, 0(t2)
    li t1, -1
    csrw stimecmp, t1
    sret
1:  la t2, ipis
    sw t1, 0(t2)
    csrci sip, 2
    sret

print:
    li t0, UART
1:  lbu t1, 0(a0)
    beqz t1, 3f
2:  lbu t2, 5(t0)
    andi t2, t2, 0x20
    beqz t2, 2b
    sb t1, 0(t0)
    addi a0, a0, 1
    j 1b
3:  ret

    .section .data
    .align 3
ipis:   .word 0
timers: .word 0
hello:  .asciz "hello\n"
got_ipi: .asciz "ipi\n"
timer:  .ascii "timer\n"
failed: .asciz "failed\n"
