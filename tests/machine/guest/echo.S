# Machine mode: what comes in through the UART's interrupt goes out again; 'q' passes through tohost.
    .equ UART, 0x10000000
    .equ PLIC, 0x0c000000
    .section .text
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, rest
    la t0, trap
    csrw mtvec, t0
    li t0, PLIC
    li t1, 1
    sw t1, 40(t0)            # source 10: priority 1
    li t2, 0x2000
    add t2, t2, t0
    li t1, 1 << 10
    sw t1, 0(t2)             # hart 0, machine: enabled
    li t0, UART
    li t1, 1
    sb t1, 2(t0)             # FIFOs
    sb t1, 1(t0)             # receive interrupt
    li t0, 1 << 11
    csrw mie, t0
    csrsi mstatus, 8
1:  wfi
    j 1b
rest:
    wfi
    j rest

    .align 2
trap:
    li s0, PLIC + 0x200004
    lw s1, 0(s0)             # claim
    li s2, UART
1:  lbu t0, 5(s2)
    andi t0, t0, 1
    beqz t0, 2f
    lbu t0, 0(s2)
    li t1, 'q'
    beq t0, t1, pass
    sb t0, 0(s2)
    j 1b
2:  sw s1, 0(s0)             # complete
    mret

pass:
    la t0, tohost
    li t1, 1
    sw t1, 0(t0)
    sw zero, 4(t0)
3:  j 3b

    .section .tohost, "aw"
    .align 12
    .globl tohost
tohost: .dword 0
    .globl fromhost
    .align 6
fromhost: .dword 0
    .align 12
