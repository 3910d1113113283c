"""Interrupts and timers: which is taken, where, when; storms of them; sleep."""

from __future__ import annotations

import threading
import time

import pytest

from celaje.engine.protocol import Interrupted, MmioWrite, Recalled
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest

MASK = (1 << 64) - 1
NEVER = MASK
SSI, MSI, STI, MTI, SEI, MEI = 1, 3, 5, 7, 9, 11
SIE, MIE = 1 << 1, 1 << 3
STCE = 1 << 63
TIME_VISIBLE = 2
SUPERVISORS = 1 << SSI | 1 << STI | 1 << SEI
TICKS_A_SECOND = 10_000_000

# ---- storms

ROUNDS = 400_000
WORK = f"""
    li s1, {ROUNDS}
    li s2, 6364136223846793005
    li s3, 1442695040888963407
    la s4, counter
    li s5, 0
work:
    mul s5, s5, s2
    add s5, s5, s3
    srli t2, s5, 33
    xor s5, s5, t2
    sd s5, 8(s4)
again:
    lr.d t2, (s4)
    addi t2, t2, 1
    sc.d t3, t2, (s4)
    bnez t3, again
    ld t2, 8(s4)
    sub t2, t2, s5
    add s6, s6, t2
    addi s1, s1, -1
    bnez s1, work
"""


def worked() -> int:
    value = 0
    for _ in range(ROUNDS):
        value = (value * 6364136223846793005 + 1442695040888963407) & MASK
        value ^= value >> 33
    return value


@pytest.fixture(scope="module")
def expected() -> int:
    return worked()


def check_work(guest: Guest, expected: int) -> None:
    assert guest.x("s5") == expected
    assert guest.x("s6") == 0
    assert guest.word(guest.labels["counter"]) == ROUNDS


@pytest.mark.parametrize("mode", [0, 1], ids=["user", "supervisor"])
@pytest.mark.parametrize("ticks", [5, 30, 300])
def test_a_storm_of_the_supervisors_timer_changes_no_result(mode: int, ticks: int, expected: int) -> None:
    with Guest(
        f"""
        {WORK}
        {DONE}
        .align 4
    handler:
        csrrw s11, sscratch, s11
        sd t0, 0(s11)
        sd t1, 8(s11)
        csrr t0, time
        addi t0, t0, {ticks}
        csrw stimecmp, t0
        ld t0, 16(s11)
        addi t0, t0, 1
        sd t0, 16(s11)
        csrr t0, scause
        ld t1, 24(s11)
        or t1, t1, t0
        sd t1, 24(s11)
        ld t0, 0(s11)
        ld t1, 8(s11)
        csrrw s11, sscratch, s11
        sret
        .align 4096
    counter: .dword 0, 0
    saved: .dword 0, 0, 0, 0
    """
    ) as guest:
        guest.open_protection()
        for name, value in {
            "stvec": guest.labels["handler"],
            "sscratch": guest.labels["saved"],
            "mideleg": SUPERVISORS,
            "mie": 1 << STI,
            "menvcfg": STCE,
            "mcounteren": TIME_VISIBLE,
            "mstatus": SIE if mode else 0,
            "mode": mode,
            "stimecmp": 0,
        }.items():
            guest.hart.set(name, value)
        began = guest.engine.time()
        guest.result()
        elapsed = guest.engine.time() - began
        check_work(guest, expected)
        count = guest.word(guest.labels["saved"] + 16)
        assert 10 < count <= elapsed // ticks + 1
        assert guest.word(guest.labels["saved"] + 24) == 1 << 63 | STI


def test_a_storm_of_the_machines_timer_whose_compare_is_a_device_changes_no_result(expected: int) -> None:
    with Guest(
        f"""
        {WORK}
        {DONE}
        .align 4
    handler:
        csrrw s11, mscratch, s11
        sd t0, 0(s11)
        li t0, {DEVICES}
        sd zero, 64(t0)         # the device sets mtimecmp
        ld t0, 16(s11)
        addi t0, t0, 1
        sd t0, 16(s11)
        ld t0, 0(s11)
        csrrw s11, mscratch, s11
        mret
        .align 4096
    counter: .dword 0, 0
    saved: .dword 0, 0, 0
    """
    ) as guest:
        hart = guest.hart
        for name, value in {
            "mtvec": guest.labels["handler"],
            "mscratch": guest.labels["saved"],
            "mie": 1 << MTI,
            "mstatus": MIE,
            "mtimecmp": 0,
        }.items():
            hart.set(name, value)
        writes, left, ticks = 0, ROUNDS, 3000
        while (came := guest.run()) == MmioWrite(DEVICES + 64, 8, 0):
            writes += 1
            assert writes < 10_000
            if left - guest.x("s1") < 100:  # time enough to get back and do something, however busy the host is
                ticks *= 2
            left = guest.x("s1")
            hart.set("mtimecmp", guest.engine.time() + ticks)
        assert isinstance(came, MmioWrite)
        assert came.address == DEVICES
        check_work(guest, expected)
        assert writes == guest.word(guest.labels["saved"] + 16) > 5


def test_lines_that_another_thread_drives_all_the_time_change_no_result(expected: int) -> None:
    """Each interrupt is acknowledged by a store to the device, which lowers the line."""
    with Guest(
        f"""
        {WORK}
        {DONE}
        .align 4
    handler:
        csrrw s11, mscratch, s11
        sd t0, 0(s11)
        li t0, {DEVICES}
        sd zero, 64(t0)
        ld t0, 0(s11)
        csrrw s11, mscratch, s11
        mret
        .align 4096
    counter: .dword 0, 0
    saved: .dword 0, 0, 0
    """
    ) as guest:
        hart = guest.hart
        hart.set("mtvec", guest.labels["handler"])
        hart.set("mscratch", guest.labels["saved"])
        hart.set("mie", 1 << MEI)
        hart.set("mstatus", MIE)
        stop = threading.Event()

        def device() -> None:
            while not stop.is_set():
                hart.set_line(MEI, True)
                time.sleep(0.001)

        thread = threading.Thread(target=device)
        hart.set_line(MEI, True)  # one at least, whatever the host is busy with
        thread.start()
        count = 0
        try:
            while guest.run() == MmioWrite(DEVICES + 64, 8, 0):
                count += 1
                assert count < 10_000
                hart.set_line(MEI, False)
        finally:
            stop.set()
            thread.join()
        check_work(guest, expected)
        assert count > 0


# ---- which one

RECORD = """
        .align 4
    handler:
        csrr t0, mcause
        sd t0, 0(s0)
        addi s0, s0, 8
        slli t0, t0, 1
        srli t0, t0, 1
        li t1, 1
        sll t1, t1, t0
        csrc mie, t1
        mret
        .align 4
    supervisors:
        csrr t0, scause
        sd t0, 0(s0)
        addi s0, s0, 8
        slli t0, t0, 1
        srli t0, t0, 1
        li t1, 1
        sll t1, t1, t0
        csrc sie, t1
        sret
        .align 8
    record: .space 128
"""


def all_pending(guest: Guest) -> None:
    hart = guest.hart
    hart.set("mip", 1 << SSI | 1 << STI)
    for line in (MSI, SEI, MEI):
        hart.set_line(line, True)
    hart.set("mtimecmp", 0)
    hart.set("mtvec", guest.labels["handler"])
    hart.set("stvec", guest.labels["supervisors"])
    hart.set("mie", 0xFFF)
    hart.set("x", guest.labels["record"], 8)


def recorded(guest: Guest) -> list[int]:
    count = (guest.x("s0") - guest.labels["record"]) // 8
    values = [guest.word(guest.labels["record"] + 8 * number) for number in range(count)]
    assert all(value >> 63 for value in values)
    return [value & 63 for value in values]


def test_interrupts_come_in_the_order_of_their_priority() -> None:
    with Guest(f"nop; nop; {DONE}\n{RECORD}") as guest:
        all_pending(guest)
        guest.hart.set("mstatus", MIE)
        guest.result()
        assert recorded(guest) == [MEI, MSI, MTI, SEI, SSI, STI]


@pytest.mark.parametrize(
    ("mode", "status", "expected"),
    [
        (0, 0, [MEI, MSI, MTI, SEI, SSI, STI]),
        (1, SIE, [MEI, MSI, MTI, SEI, SSI, STI]),
        (1, 0, [MEI, MSI, MTI]),
        (3, SIE, []),
        (3, MIE, [MEI, MSI, MTI]),
    ],
    ids=["user", "supervisor", "supervisor, off", "machine, off", "machine"],
)
def test_delegated_interrupts_are_taken_below_machine_mode_alone(mode: int, status: int, expected: list[int]) -> None:
    with Guest(f"nop; nop; nop; nop; {DONE}\n{RECORD}") as guest:
        guest.open_protection()
        all_pending(guest)
        guest.hart.set("mideleg", SUPERVISORS)
        guest.hart.set("mstatus", status)
        guest.hart.set("mode", mode)
        guest.result()
        assert recorded(guest) == expected
        assert guest.hart.get("mode") == mode


def test_a_vector_sends_interrupts_each_to_its_place_and_exceptions_to_the_first() -> None:
    with Guest(
        f"""
        la t0, table
        addi t0, t0, 1
        csrw mtvec, t0
        ecall
        csrs mstatus, s1
        nop
        {DONE}
        .align 256
    table:
        j exception
        .org {BASE + 256 + 4 * MSI}
        j software
        .org {BASE + 256 + 4 * MEI}
        j external
        .org {BASE + 512}
    exception: csrr t0, mepc; addi t0, t0, 4; csrw mepc, t0; li t0, 0x1800; csrs mstatus, t0; addi a0, a0, 1; mret
    software: li t0, {1 << MSI}; csrc mie, t0; addi a0, a0, 10; mret
    external: li t0, {1 << MEI}; csrc mie, t0; addi a0, a0, 100; mret
    """
    ) as guest:
        guest.hart.set_line(MSI, True)
        guest.hart.set_line(MEI, True)
        guest.hart.set("mie", 1 << MSI | 1 << MEI)
        guest.hart.set("x", MIE, 9)
        assert guest.labels["table"] == BASE + 256
        assert guest.result() == 111


def test_an_interrupt_is_taken_right_after_the_instruction_that_opens_the_way() -> None:
    for opens in ("csrs mstatus, s1", "csrs mie, s2", "mret"):
        with Guest(
            f"""
            la t0, handler; csrw mtvec, t0
            la t0, after; csrw mepc, t0
            {"csrs mstatus, s3; csrs mie, s2" if opens == "mret" else
             "csrs mie, s2" if "mstatus" in opens else "csrs mstatus, s1"}
            {opens}
        after:
            addi a0, a0, 1
            {DONE}
            .align 4
        handler:
            csrr a1, mepc
            {DONE}
        """
        ) as guest:
            guest.hart.set_line(MSI, True)
            guest.hart.set("x", MIE, 9)
            guest.hart.set("x", 1 << MSI, 18)
            guest.hart.set("x", 0x1880, 19)
            assert guest.result() == 0
            assert guest.x("a1") == guest.labels["after"]


def test_a_handler_that_opens_the_way_again_is_interrupted_itself() -> None:
    with Guest(
        f"""
        la t0, outer; csrw mtvec, t0
        csrs mie, s2
        csrs mstatus, s1
        nop
        {DONE}
        .align 4
    outer:
        csrr s4, mepc
        csrr s5, mstatus
        csrc mie, s2
        la t0, inner; csrw mtvec, t0
        csrs mie, s3
        csrs mstatus, s1
        addi a0, a0, 1
        csrw mepc, s4
        csrw mstatus, s5
        mret
        .align 4
    inner:
        csrc mie, s3
        slli a0, a0, 4
        addi a0, a0, 2
        mret
    """
    ) as guest:
        guest.hart.set_line(MSI, True)
        guest.hart.set_line(MEI, True)
        for register, value in ((9, MIE), (18, 1 << MSI), (19, 1 << MEI)):
            guest.hart.set("x", value, register)
        assert guest.result() == 3
        assert guest.hart.get("mcause") == 1 << 63 | MEI


def test_a_line_that_went_down_again_interrupts_nobody() -> None:
    with Guest(f"csrs mstatus, s1; nop; li a0, 5; {DONE}\n{RECORD}") as guest:
        guest.hart.set("mtvec", guest.labels["handler"])
        guest.hart.set("mie", 1 << MEI)
        guest.hart.set("x", MIE, 9)
        guest.hart.set_line(MEI, True)
        guest.hart.set_line(MEI, False)
        assert guest.result() == 5


def test_what_software_sets_and_what_devices_drive_are_both_seen_in_mip() -> None:
    with Guest(
        f"""
        csrr s0, mip
        csrs mip, s8            # SEIP by software as well
        csrr s1, mip
        csrc mip, s8            # only software's
        csrr s2, mip
        {DONE}
    """
    ) as guest:
        guest.hart.set_line(SEI, True)
        guest.hart.set("x", 1 << SEI, 24)
        guest.result()
        assert [guest.x(name) & 1 << SEI for name in ("s0", "s1", "s2")] == [1 << SEI] * 3
        guest.hart.set_line(SEI, False)
        guest.hart.set("pc", BASE)
        guest.result()
        assert [guest.x(name) & 1 << SEI for name in ("s0", "s1", "s2")] == [0, 1 << SEI, 0]


# ---- sleep

SLEEP = f"""
    sleep:
        wfi
        addi s1, s1, 1
        csrr t0, mip
        csrr t1, mie
        and a0, t0, t1
        beqz a0, sleep
        {DONE}
"""


def woken_by(guest: Guest, wake: object, after: float = 0.05) -> int:
    assert callable(wake)
    timer = threading.Timer(after, wake)
    timer.start()
    result = guest.result()
    timer.join()
    return result


def test_wfi_sleeps_until_the_timer() -> None:
    arm = f"csrr t0, time; li t1, {TICKS_A_SECOND // 20}; add s0, t0, t1; csrw stimecmp, s0"
    with Guest(f"{arm}\n{SLEEP}") as guest:
        guest.hart.set("menvcfg", STCE)
        guest.hart.set("mie", 1 << STI)
        assert guest.result() == 1 << STI
        assert guest.engine.time() >= guest.x("s0")
        assert guest.x("s1") < 20  # it slept


def test_wfi_wakes_by_a_line() -> None:
    with Guest(SLEEP) as guest:
        guest.hart.set("mie", 1 << MEI)
        assert woken_by(guest, lambda: guest.hart.set_line(MEI, True)) == 1 << MEI
        assert guest.x("s1") < 20


def test_wfi_wakes_when_its_compare_value_is_set_from_outside() -> None:
    with Guest(SLEEP) as guest:
        guest.hart.set("mie", 1 << MTI)
        assert woken_by(guest, lambda: guest.hart.set("mtimecmp", 0)) == 1 << MTI


def test_wfi_wakes_when_the_clock_is_set_past_its_timer() -> None:
    with Guest(SLEEP) as guest:
        guest.hart.set("mie", 1 << MTI)
        guest.hart.set("mtimecmp", 10_000 * TICKS_A_SECOND)
        assert woken_by(guest, lambda: guest.engine.set_time(20_000 * TICKS_A_SECOND)) == 1 << MTI


def test_a_recalled_hart_comes_back_instead_of_sleeping_once() -> None:
    with Guest(SLEEP) as guest:
        guest.hart.set("mie", 1 << MEI)
        guest.hart.recall()
        guest.hart.recall()
        assert guest.run() == Recalled(idle=True)
        assert guest.x("s1") == 0
        assert woken_by(guest, lambda: guest.hart.set_line(MEI, True)) == 1 << MEI


def test_a_recalled_hart_that_is_busy_comes_back_soon_and_once() -> None:
    with Guest(f"li a1, 1000000; busy: addi s0, s0, 1; bne s0, a1, busy; {DONE}") as guest:
        guest.hart.recall()
        assert guest.run() == Recalled(idle=False)
        assert 0 < guest.x("s0") < 100_000
        guest.result()
        assert guest.x("s0") == 1_000_000


def test_a_store_to_a_device_does_not_use_up_a_recall() -> None:
    with Guest(f"li t0, {DEVICES}; sw t0, 0(t0); sw t0, 4(t0); wfi; {DONE}") as guest:
        guest.hart.set("mie", 1 << MEI)
        assert guest.run() == MmioWrite(DEVICES, 4, DEVICES)
        guest.hart.recall()
        assert guest.run() == MmioWrite(DEVICES + 4, 4, DEVICES)
        guest.hart.recall()
        assert guest.run() == Recalled(idle=True)


def test_a_hart_that_stores_to_a_device_all_the_time_comes_back_for_a_recall_too() -> None:
    with Guest(f"li t0, {DEVICES}; busy: sw t0, 0(t0); j busy") as guest:
        for _ in range(100):
            guest.hart.recall()
            if (left := guest.run()) != MmioWrite(DEVICES, 4, DEVICES):
                break
        assert left == Recalled(idle=False)
        assert guest.run() == MmioWrite(DEVICES, 4, DEVICES)


def test_a_sleeping_hart_can_be_interrupted_and_sleeps_on() -> None:
    with Guest(SLEEP) as guest:
        guest.hart.set("mie", 1 << MEI)
        for _ in range(3):
            threading.Timer(0.02, guest.hart.interrupt).start()
            assert guest.run() == Interrupted()
        assert woken_by(guest, lambda: guest.hart.set_line(MEI, True)) == 1 << MEI


def test_wfi_does_not_sleep_over_what_is_pending_but_closed() -> None:
    """mstatus.MIE is clear: no trap, but no sleep either."""
    with Guest(f"{SLEEP}\n{RECORD}") as guest:
        guest.hart.set("mtvec", guest.labels["handler"])
        guest.hart.set_line(MSI, True)
        guest.hart.set("mie", 1 << MSI)
        assert guest.result() == 1 << MSI
        assert guest.x("s1") == 1


def test_no_wake_up_is_lost_between_a_look_and_a_sleep() -> None:
    """A line goes up at every moment there is; the guest acknowledges each and sleeps again."""
    rounds = 4000
    with Guest(
        f"""
        la t0, handler; csrw mtvec, t0
        li t2, {DEVICES}
        csrs mstatus, s1
    loop:
        wfi
        j loop
        .align 4
    handler:
        sd zero, 64(t2)
        addi t3, t3, 7          # a while, another one each time, so that it falls asleep sooner or later
        slli t4, t3, 50
        srli t4, t4, 46
    while:
        addi t4, t4, -1
        blt zero, t4, while
        mret
    """
    ) as guest:
        hart = guest.hart
        hart.set("mie", 1 << MEI)
        hart.set("x", MIE, 9)
        up = threading.Event()
        failed = threading.Event()

        def device() -> None:
            for _ in range(rounds):
                hart.set_line(MEI, True)
                if not up.wait(60):
                    failed.set()
                    hart.interrupt()
                    return
                up.clear()
            hart.interrupt()

        thread = threading.Thread(target=device)
        thread.start()
        served = 0
        while (came := guest.hart.run()) == MmioWrite(DEVICES + 64, 8, 0):
            hart.set_line(MEI, False)
            served += 1
            up.set()
        thread.join()
        assert came == Interrupted()
        assert not failed.is_set()
        assert served == rounds


def test_harts_ring_each_other_from_their_sleep() -> None:
    """Two harts pass a ball by software interrupts, through Python as a board does."""
    with Guest(
        f"""
        csrr s0, mhartid
        la t0, handler; csrw mtvec, t0
        li s2, {DEVICES}
        csrs mstatus, s1
        bnez s0, loop
        sd zero, 64(s2)         # ring the other one
    loop:
        wfi
        j loop
        .align 4
    handler:
        sd zero, 72(s2)         # my line goes down
        addi s3, s3, 1
        li t0, 500
        bge s3, t0, end
        sd zero, 64(s2)
        mret
    end:
        sd zero, 64(s2)
        {DONE}
    """,
        harts=2,
    ) as guest:
        harts = guest.engine.harts
        done = []

        def serve(index: int) -> None:
            while True:
                came = guest.run(index)
                if came == MmioWrite(DEVICES + 64, 8, 0):
                    harts[1 - index].set_line(MSI, True)
                elif came == MmioWrite(DEVICES + 72, 8, 0):
                    harts[index].set_line(MSI, False)
                else:
                    done.append(came)
                    return

        for hart in harts:
            hart.set("mie", 1 << MSI)
            hart.set("x", MIE, 9)
        threads = [threading.Thread(target=serve, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [MmioWrite(DEVICES, 8, 0)] * 2
        assert [guest.x("s3", index) for index in range(2)] == [500, 500]
