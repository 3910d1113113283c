"""Code that changes: by the hart that executes it, by another hart, by a device; on pages, lines and instructions."""

from __future__ import annotations

import random
import threading

import pytest

from celaje.engine.protocol import MmioWrite
from celaje.isa.riscv.instructions import RISCV
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, assemble, word
from tests.engine.translate.page_tables import ALL, CODE, PageTables

FENCES = ["nop", "fence.i"]
MASK = (1 << 64) - 1
DECODE = RISCV.decoder(64)


def patching_loop(change: str, fence: str, rounds: int) -> str:
    """Each round `change` (k is in s1) stores to `target`, which then is executed; the sum of a1 is the result."""
    return f"""
        li s0, 0
        li s1, 0
        la s2, target
        li s3, {rounds}
        lw s4, 0(s2)
    loop:
        addi s1, s1, 1
        {change}
        {fence}
    target:
        addi a1, zero, 0
        add s0, s0, a1
        bne s1, s3, loop
        mv a0, s0
        {DONE}
    """


@pytest.mark.parametrize("fence", FENCES)
@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ("slli t1, s1, 20; or t1, t1, s4; sw t1, 0(s2)", 1),
        ("slli t1, s1, 4; sh t1, 2(s2)", 1),  # the second half alone
        ("sb s1, 3(s2)", 16),
        ("slli t1, s1, 20; or t1, t1, s4; lwu t2, 4(s2); slli t2, t2, 32; or t1, t1, t2; sd t1, 0(s2)", 1),
        ("slli t1, s1, 20; or t1, t1, s4; amoswap.w t2, t1, (s2)", 1),
        ("slli t1, s1, 20; or t1, t1, s4; lr.w t2, (s2); sc.w t2, t1, (s2)", 1),
        ("slli t1, s1, 20; or t1, t1, s4; fmv.w.x f1, t1; fsw f1, 0(s2)", 1),
    ],
    ids=["whole", "second half", "byte", "doubleword", "amo", "sc", "float"],
)
def test_a_store_to_the_next_instruction_counts_at_once(change: str, factor: int, fence: str) -> None:
    with Guest("nop; nop\n" + patching_loop(change, fence, 50)) as guest:
        guest.hart.set("fs", 3)
        assert guest.result() == factor * sum(range(1, 51))


@pytest.mark.parametrize("fence", FENCES)
def test_a_store_changes_an_instruction_whose_line_was_read_but_that_was_never_reached(fence: str) -> None:
    with Guest(
        f"""
        j start
        .org {BASE + 128}
    start:
        la t0, target
        lui t1, {word("addi a0, zero, 7") >> 12}
        addiw t1, t1, {word("addi a0, zero, 7") & 0xFFF}
        sw t1, 0(t0)
        {fence}
        nop
        nop
    target:
        addi a0, zero, 1
        {DONE}
    """
    ) as guest:
        assert guest.labels["target"] // 64 == guest.labels["start"] // 64
        assert guest.result() == 7


def test_code_that_was_decoded_but_not_yet_reached_again_is_replaced_by_a_jump_back() -> None:
    """The store is behind its target: a loop that grows its own stride."""
    with Guest(
        f"""
        li a0, 0
        li s1, 0
        la s2, target
        li s4, {word("addi a0, a0, 0")}
        li s3, 40
    target:
        addi a0, a0, 0
        addi s1, s1, 1
        slli t1, s1, 20
        or t1, t1, s4
        sw t1, 0(s2)
        bne s1, s3, target
        {DONE}
    """
    ) as guest:
        assert guest.result() == sum(range(40))


# ---- straight lines of all sorts of neighbours, changed piece by piece

LINE_LENGTH = 14
DATA_WORDS = [0x0123456789ABCDEF, MASK, 0x8000000080000000, 5]


def random_instruction(chance: random.Random, length: int) -> str:
    k = chance.randrange(-32, 32)
    registers = [chance.choice(("a0", "a1", "a2")) for _ in range(3)]
    d, s, t = registers
    long = [
        f"lui {d}, {chance.randrange(1 << 20)}",
        f"addi {d}, {s}, {k * 50}",
        f"addiw {d}, {s}, {k}",
        f"addi {d}, zero, {k}",
        f"add {d}, {s}, {t}",
        f"sub {d}, {s}, {t}",
        f"xor {d}, {s}, {t}",
        f"slli {d}, {s}, {k & 63}",
        f"srli {d}, {s}, {k & 63}",
        f"sh1add {d}, {s}, {t}",
        f"ld {d}, {8 * (k & 3)}(s2)",
        f"lw {d}, {4 * (k & 7)}(s2)",
    ]
    short = [
        f"c.li {d}, {k}",
        f"c.addi {d}, {k or 1}",
        f"c.mv {d}, {s}",
        f"c.add {d}, {s}",
        f"c.slli {d}, {k & 63 or 1}",
        f"c.xor {d}, {s}",
        f"c.addiw {d}, {k}",
    ]
    return chance.choice(long if length == 4 else short)


def executed(line: bytes) -> int:
    """What the line leaves in a0 when a0 to a2 begin as 1, 2, 3."""
    x = {0: 0, 10: 1, 11: 2, 12: 3}
    data = b"".join(value.to_bytes(8, "little") for value in DATA_WORDS)

    def signed(value: int, bits: int) -> int:
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> bits - 1 else value

    at = 0
    while at < len(line):
        decoded = DECODE(int.from_bytes(line[at : at + 4].ljust(4, b"\0"), "little"))
        assert decoded is not None
        o, name = decoded.operands, decoded.instruction.base or decoded.instruction.name
        a, b = x.get(o.get("rs1", 0), 0), x.get(o.get("rs2", 0), 0)
        k = o.get("imm", o.get("shamt", 0))
        match name.partition("/")[0]:
            case "lui":
                value = k
            case "addi":
                value = a + k
            case "addiw":
                value = signed(a + k, 32)
            case "add":
                value = a + b
            case "sub":
                value = a - b
            case "xor":
                value = a ^ b
            case "slli":
                value = a << k
            case "srli":
                value = a >> k
            case "sh1add":
                value = 2 * a + b
            case "ld":
                value = int.from_bytes(data[k : k + 8], "little")
            case "lw":
                value = signed(int.from_bytes(data[k : k + 4], "little"), 32)
            case other:
                raise AssertionError(other)
        x[o["rd"]] = value & MASK
        at += decoded.instruction.length
    return x[10]


@pytest.mark.parametrize("fence", FENCES)
@pytest.mark.parametrize("seed", range(4))
def test_lines_of_neighbours_are_executed_as_they_stand_after_each_store(seed: int, fence: str) -> None:
    chance = random.Random(seed)
    lengths = [chance.choice((2, 4)) for _ in range(LINE_LENGTH)]
    while sum(lengths) % 4:
        lengths.append(2)
    line = bytearray(assemble("\n".join(random_instruction(chance, n) for n in lengths)).image())
    stores, results = [], []
    current = line[:]
    for _ in range(300):
        number = chance.randrange(len(lengths))
        at = sum(lengths[:number])
        new = assemble(random_instruction(chance, lengths[number])).image()
        current[at : at + len(new)] = new
        # one store that covers it, in a place and width of its own
        size = chance.choice([size for size in (2, 4, 8) if size >= len(new)])
        start = chance.randint(max(0, at + len(new) - size), min(at, len(current) - size))
        stores.append((start, int.from_bytes(current[start : start + size], "little"), size))
        results.append(executed(bytes(current)))
    program = f"""
        la s0, line
        la s1, table
        la s2, data
    loop:
        lbu t2, 16(s1)
        beqz t2, end
        ld t0, 0(s1)
        ld t1, 8(s1)
        add t0, t0, s0
        li a0, 1; li a1, 2; li a2, 3
        li t3, 2
        beq t2, t3, two
        li t3, 4
        beq t2, t3, four
        sd t1, 0(t0)
        j go
    two:
        sh t1, 0(t0)
        j go
    four:
        sw t1, 0(t0)
    go: {fence}
        j line
        .align 8
    line:
        .space {len(line)}
        sd a0, 24(s1)
        addi s1, s1, 32
        j loop
    end:
        {DONE}
        .align 8
    data: .dword {", ".join(map(str, DATA_WORDS))}
        .align 4096
    table:
    """
    with Guest(program) as guest:
        guest.memory.write(guest.labels["line"], line)
        for index, (start, value, size) in enumerate(stores):
            for position, part in enumerate((start, value, size)):
                guest.put(guest.labels["table"] + 32 * index + 8 * position, part)
        guest.result()
        got = [guest.word(guest.labels["table"] + 32 * index + 24) for index in range(len(stores))]
        assert got == results, (seed, [i for i, (a, b) in enumerate(zip(got, results, strict=True)) if a != b][:3])


# ---- pages


def test_code_on_a_page_that_is_also_data_is_right_before_and_after_it_was_dropped() -> None:
    with Guest(
        f"""
        li s0, 0
        li s1, 0
        la s2, function
        la s5, data
        li s3, 2000
        lw s4, 0(s2)
    loop:
        addi s1, s1, 1
        sd s1, 0(s5)
        ld t0, 0(s5)
        add s0, s0, t0
        andi t0, s1, 127
        bnez t0, on
        srli t0, s1, 7          # now and then the function changes and is called
        slli t0, t0, 20
        or t0, t0, s4
        sw t0, 0(s2)
        call function
        add s0, s0, a0
    on: bne s1, s3, loop
        mv a0, s0
        {DONE}
        .align 4096
    function:
        addi a0, zero, 0
        ret
        .align 64
    data: .dword 0
    """
    ) as guest:
        assert guest.result() == sum(range(1, 2001)) + sum(range(1, 2000 // 128 + 1))
        assert guest.hart.get("pages_decoded") > 3  # the page was dropped and decoded again


def test_a_page_that_stores_to_itself_for_ever_stays_right() -> None:
    with Guest(
        f"""
        li a0, 0
        li s1, 3000
        la s2, data
    loop:
        ld t0, 0(s2)
        add a0, a0, t0
        addi t0, t0, 1
        sd t0, 0(s2)
        addi s1, s1, -1
        bnez s1, loop
        {DONE}
        .align 8
    data: .dword 0
    """
    ) as guest:
        assert guest.result() == sum(range(3000))


def test_a_block_that_is_zeroed_is_no_code_any_more() -> None:
    with Guest(
        """
        la t0, block
        call block
        cbo.zero 0(t0)
        call block
        .align 64
    block:
        ret
    """
    ) as guest:
        guest.load_trap_handler()
        trap = guest.trap()
        assert (trap.cause, trap.pc, trap.value) == (2, guest.labels["block"], 0)


# ---- the end of a page

EDGE = BASE + 0x2FFE
V_EDGE = 0x4000_0FFE


def at_the_edge(instruction: int) -> tuple[bytes, bytes]:
    data = instruction.to_bytes(4, "little")
    return data[:2], data[2:]


def test_an_instruction_lies_across_two_pages() -> None:
    text = f"li t0, {EDGE}; li s1, 0\nloop: addi s1, s1, 1; jalr ra, 0(t0); li t1, 5; bne s1, t1, loop; {DONE}"
    with Guest(text) as guest:
        guest.load("addi a0, a0, 3; ret", EDGE)
        assert guest.result() == 15


def test_a_hart_changes_either_half_of_an_instruction_across_two_pages() -> None:
    for offset, factor in ((2, 1), (0, 0)):
        change = "slli t1, s1, 4; ori t1, t1, 5; sh t1, 2(s2)" if offset else "lhu t1, 0(s2); sh t1, 0(s2)"
        with Guest(
            f"""
            li s2, {EDGE}
            li s1, 0
        loop:
            addi s1, s1, 1
            {change}
            jalr ra, 0(s2)
            li t1, 20
            bne s1, t1, loop
            {DONE}
        """
        ) as guest:
            guest.load("addi a0, a0, 0; ret", EDGE)
            assert guest.result() == factor * sum(range(1, 21))


def supervisor_guest(at: int) -> tuple[Guest, PageTables]:
    """A hart about to execute virtual address `at` in supervisor mode; traps end the program."""
    guest = Guest()
    tables = PageTables(guest, BASE + 0x100000)
    guest.load_trap_handler()
    guest.open_protection()
    guest.hart.set("mode", 1)
    guest.hart.set("satp", tables.satp)
    guest.hart.set("pc", at)
    return guest, tables


@pytest.mark.parametrize(
    ("entry", "cause"),
    [(None, 12), ((BASE + 0x4000, ALL & ~4 & ~8), 12), ((0x2000_0000, CODE), 1)],
    ids=["unmapped", "not executable", "no memory"],
)
def test_a_second_half_that_cannot_be_fetched_faults_at_its_own_address(
    entry: tuple[int, int] | None, cause: int
) -> None:
    guest, tables = supervisor_guest(V_EDGE)
    with guest:
        tables.map(V_EDGE - 0xFFE, BASE + 0x2000, CODE)
        if entry is not None:
            tables.map(V_EDGE + 2, entry[0], entry[1])
        guest.memory.write(EDGE, at_the_edge(word("addi a0, a0, 3"))[0])
        trap = guest.trap()
        assert (trap.cause, trap.value, trap.pc) == (cause, V_EDGE + 2, V_EDGE)


def test_a_first_half_that_cannot_be_fetched_faults_at_the_instruction() -> None:
    guest, tables = supervisor_guest(V_EDGE)
    with guest:
        tables.map(V_EDGE + 2, BASE + 0x3000, CODE)
        trap = guest.trap()
        assert (trap.cause, trap.value, trap.pc) == (12, V_EDGE, V_EDGE)


def test_an_illegal_instruction_across_two_pages_shows_all_its_bits() -> None:
    with Guest(f"li t0, {EDGE}; jr t0") as guest:
        guest.load_trap_handler()
        guest.put(EDGE, 0xFFFFFFFF, 4)
        trap = guest.trap()
        assert (trap.cause, trap.value, trap.pc) == (2, 0xFFFFFFFF, EDGE)


def test_the_second_page_of_an_instruction_is_another_one_after_sfence_vma() -> None:
    one, two = BASE + 0x4000, BASE + 0x5000
    guest, tables = supervisor_guest(BASE)
    with guest:
        tables.map(BASE, BASE, ALL, level=2)  # code, data and tables stand where they are
        tables.map(DEVICES, DEVICES, ALL)
        tables.map(V_EDGE - 0xFFE, BASE + 0x2000, CODE)
        entry = tables.map(V_EDGE + 2, one, CODE)
        guest.load(
            f"""
            li s0, {entry}
            li s1, {V_EDGE}
            ld s2, 0(s0)
            li t0, {(one ^ two) >> 2}
            xor s3, s2, t0
            li s4, 50
        loop:
            jalr ra, 0(s1)
            sd s3, 0(s0)
            li t0, {V_EDGE + 2}
            sfence.vma t0, zero
            jalr ra, 0(s1)
            sd s2, 0(s0)
            sfence.vma zero, zero
            addi s4, s4, -1
            bnez s4, loop
            {DONE}
        """
        )
        low, high = at_the_edge(word("addi a0, a0, 1"))
        _, other = at_the_edge(word("addi a0, a0, 100"))
        guest.memory.write(EDGE, low)
        back = word("jalr zero, 0(ra)").to_bytes(4, "little")
        guest.memory.write(one, high + back)
        guest.memory.write(two, other + back)
        assert guest.result() == 50 * 101


def test_an_instruction_whose_halves_are_the_end_and_the_beginning_of_one_physical_page() -> None:
    guest, tables = supervisor_guest(V_EDGE)
    with guest:
        tables.map(BASE, BASE, ALL, level=2)
        tables.map(DEVICES, DEVICES, ALL)
        for page in (V_EDGE - 0xFFE, V_EDGE + 2):
            tables.map(page, BASE + 0x2000, ALL)
        low, high = at_the_edge(word("addi a0, a0, 1"))
        guest.memory.write(EDGE, low)
        # then it changes its own second half through the other name, and goes round once more
        rest = assemble(
            f"""
            beq s1, zero, first
            {DONE}
        first:
            li s1, 1
            li t0, {V_EDGE - 0xFFE}
            li t1, {at_the_edge(word("addi a0, a0, 64"))[1][1] << 8 | at_the_edge(word("addi a0, a0, 64"))[1][0]}
            sh t1, 0(t0)
            li t0, {V_EDGE}
            jr t0
        """
        ).image()
        guest.memory.write(BASE + 0x2000, high + rest)
        assert guest.result() == 65


# ---- other harts and devices


def patcher(own: str, other: str, rounds: int, flag_in: str, flag_out: str, first: bool) -> str:
    """Write the other's function, tell it; wait to be told, execute one's own."""
    tell = f"""
        slli t1, s1, 20
        or t1, t1, s4
        la t0, {other}
        sw t1, 0(t0)
        fence rw, rw
        la t0, {flag_out}
        sd s1, 0(t0)
    """
    hear = f"""
    wait_{own}:
        la t0, {flag_in}
        ld t1, 0(t0)
        bltu t1, s1, wait_{own}
        fence r, rw
        fence.i
        call {own}
        bne a0, s1, wrong
    """
    return f"""
        li s1, 0
        li s3, {rounds}
        li s4, {word("addi a0, zero, 0")}
    loop_{own}:
        addi s1, s1, 1
        {tell + hear if first else hear + tell}
        bne s1, s3, loop_{own}
        li a0, 0
        {DONE}
    """


def test_two_harts_patch_each_others_code_and_see_it_after_fence_i() -> None:
    text = f"""
        csrr t0, mhartid
        bnez t0, second
        {patcher("first", "other", 2000, "told0", "told1", True)}
    second:
        {patcher("other", "first", 2000, "told1", "told0", False)}
    wrong:
        mv a0, s1
        {DONE}
        .align 4096
    first: addi a0, zero, 0
        ret
    other: addi a0, zero, 0
        ret
        .align 64
    told0: .dword 0
        .align 64
    told1: .dword 0
    """
    with Guest(text, harts=2) as guest:
        exits = guest.run_all()
        assert exits == [MmioWrite(DEVICES, 8, 0)] * 2


@pytest.mark.parametrize("running", [False, True])
def test_code_that_a_device_wrote_is_executed_after_fence_i(running: bool) -> None:
    """Stopped: the device writes between two runs. Running: while the hart waits in a loop for word of it."""
    rounds = 100
    wait = "wait: ld t0, 0(s5); bltu t0, s1, wait" if running else f"li t6, {DEVICES}; sd s1, 16(t6)"
    with Guest(
        f"""
        li s0, 0
        li s1, 0
        li s3, {rounds}
        la s5, told
        la s6, asked
    loop:
        addi s1, s1, 1
        sd s1, 0(s6)
        {wait}
        fence.i
        call function
        add s0, s0, a0
        bne s1, s3, loop
        mv a0, s0
        {DONE}
    told: .dword 0
    asked: .dword 0
        .align 4096
    function:
        addi a0, zero, 0
        ret
    """
    ) as guest:
        function = guest.labels["function"]
        stop = threading.Event()

        def device() -> None:
            done = 0
            while done < rounds and not stop.is_set():
                if (asked := guest.word(guest.labels["asked"])) > done:
                    guest.put(function, word(f"addi a0, zero, {asked}"), 4)
                    guest.put(guest.labels["told"], asked)
                    done = asked

        if running:
            thread = threading.Thread(target=device)
            thread.start()
            try:
                assert guest.result() == sum(range(rounds + 1))
            finally:
                stop.set()
                thread.join()
            return
        for number in range(1, rounds + 1):
            assert guest.run() == MmioWrite(DEVICES + 16, 8, number)
            guest.put(function, word(f"addi a0, zero, {number}"), 4)
        assert guest.result() == sum(range(rounds + 1))


def test_a_device_that_writes_without_a_fence_does_no_harm() -> None:
    """What is executed is the old or the new instruction, and the new one after fence.i."""
    with Guest(
        f"""
        la s2, told
    loop:
        call function
        li t0, 1
        beq a0, t0, well
        li t0, 2
        bne a0, t0, end
    well:
        ld t0, 0(s2)
        beqz t0, loop
        fence.i
        call function
    end:
        {DONE}
    told: .dword 0
        .align 4096
    function:
        addi a0, zero, 1
        ret
    """
    ) as guest:
        def write() -> None:
            for number in (2, 1) * 500 + (2,):
                guest.put(guest.labels["function"], word(f"addi a0, zero, {number}"), 4)
            guest.put(guest.labels["told"], 1)

        timer = threading.Timer(0.02, write)
        timer.start()
        assert guest.result() == 2
        timer.join()


def test_a_page_that_was_stored_to_and_gave_way_becomes_code_that_a_store_changes() -> None:
    """The page's entry for stores waits aside when the page is first executed; it must not be found there again."""
    aside = 512 * 4096
    with Guest(
        f"""
        la s0, code
        li s1, {aside}
        add s1, s0, s1
        la s2, new
        lw s3, 0(s2)
        lw s4, 0(s0)
        sw s4, 0(s0)
        ld t0, 0(s1)
        jalr ra, 0(s0)
        mv s5, a0
        ld t0, 0(s1)
        sw s3, 0(s0)
        jalr ra, 0(s0)
        slli s5, s5, 4
        or a0, a0, s5
        {DONE}
    new:
        addi a0, zero, 2
        .align 4096
    code:
        addi a0, zero, 1
        ret
    """,
        size=8 << 20,
    ) as guest:
        assert guest.result() == 0x12
