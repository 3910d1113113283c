"""Random experiments with the privileged architecture: one instruction each, in a random mode and a random setting.

A driver in machine mode takes one record after the other: it writes the control registers that the record says, loads
all x registers and enters the record's instruction by mret (or, in machine mode, by a jump, so that MPRV and MPP stay).
Behind the instruction is an ecall. Whatever traps ends up in the machine-mode handler, by way of an ecall in the
supervisor's handler where it is delegated; the handler writes registers and causes into the record and goes on with the
next one. Afterwards memory is compared: records, page tables (accessed and dirty bits) and data.

    CODE      driver and handlers; SLOTS: the instructions, 16 bytes each
    RECORDS   1 KiB each: 64 words in (see `Record`), 64 words out (x1 to x31, then LOGGED)
    TABLES    ROOT_57 -> ROOT_48 -> ROOT_39 -> [5] MEGAPAGES -> [0..3] PAGES, PAGES + 4 KiB, ...
    POOL      the pages that random translations lead to

The gigapage at CODE is mapped onto itself for the supervisor, and 1 GiB higher for the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from celaje.isa.riscv.csr import REGISTERS
from celaje.isa.riscv.instructions import RISCV
from tests.differential import values
from tests.differential.program import bits

MEMORY, MEMORY_SIZE = 0x8000_0000, 32 << 20
CODE, SLOTS, RECORDS = MEMORY, MEMORY + 0x1000, MEMORY + 0x40000
TABLES, POOL = MEMORY + 0x20_0000, MEMORY + 0x40_0000
ROOT_39, ROOT_48, ROOT_57, MEGAPAGES, PAGES = (TABLES + 0x1000 * i for i in range(5))
PAGE_TABLES, POOL_PAGES = 4, 16
COMPARED_END = POOL + 0x1000 * POOL_PAGES
USER_ALIAS = 0x4000_0000  # added to CODE's addresses for the user
WINDOW = 5 << 30  # virtual: what MEGAPAGES maps; without translation, nothing is there
FINISHER, FINISHED = 0x10_0000, 0x5555
RECORD_SIZE, OUT = 1024, 512
SUPERVISOR_HANDLER = CODE + 0xF80

PMP_ENTRIES = 8  # as many as one pmpcfg register says
CONTROL = (
    "medeleg mideleg mie mip satp menvcfg senvcfg mcounteren scounteren stvec mepc fcsr pmpcfg0".split()
    + [f"pmpaddr{i}" for i in range(PMP_ENTRIES)]
    + ["sscratch", "sepc", "scause", "stval", "mcause", "mtval"]
    + ["mstatus"]  # the last, since it may turn floating point off
)
LOGGED = "mcause mepc mtval mstatus scause sepc stval satp mip pmpcfg0 sscratch".split()
NUMBERS = {register.name: number for number, register in REGISTERS.items()}
DIRECT = len(CONTROL)  # the word that says whether to jump
X = 32  # x0's word; x1 to x31 follow

V, R, W, EXECUTE, U, G, A, D = (1 << bit for bit in range(8))
SIE, MIE, SPIE, MPIE, SPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8
MPRV, SUM, MXR, TVM, TW, TSR = (1 << bit for bit in range(17, 23))
FS_BIT, MPP_BIT = 13, 11
SUPERVISOR_INTERRUPTS = (1, 5, 9)
DELEGABLE = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 15)
SET_MSTATUS, JUMP = 30, 31  # registers of a direct entry

# Counters and the machine's identity differ from machine to machine; the others say how the driver is to be reached.
INCOMPARABLE = (
    *("cycle", "time", "instret", "mcycle", "minstret", "hpm", "mhpm", "mcountinhibit", "stimecmp", "mip"),
    *("mvendorid", "marchid", "mimpid", "misa", "mconfigptr"),
    *("pmpaddr", "pmpcfg", "mtvec", "mscratch", "tselect", "tdata", "tinfo", "tcontrol"),  # triggers are none here
)
COMPARABLE_REGISTERS = [name for name in NUMBERS if not name.startswith(INCOMPARABLE) and not name.endswith("h")]
MEMORY_INSTRUCTIONS = [
    key
    for key, entry in RISCV.instructions.items()
    if entry.extension in ("I", "A", "F", "D") and "(rs1)" in entry.syntax and entry.name != "jalr"
    if 64 in entry.xlens
]
# What is not here would leave patterns of instructions in memory that do not trap.
KEEPING_PATTERNS = ("amoswap", "amoand", "amoor", "amomin", "amomax", "lr.", "sc.")
SYSTEM = ("ecall", "ebreak", "mret", "sret", "wfi", "sfence.vma", "sinval.vma", "sfence.w.inval", "fence.i")


@dataclass
class Record:
    """One experiment: values of CONTROL, of the x registers, and its instruction."""

    control: dict[str, int]
    registers: list[int]
    instruction: int
    length: int
    direct: bool
    about: str = ""


@dataclass
class Code:
    """Instructions of 4 bytes, with jumps to labels that may come later."""

    words: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    jumps: list[tuple[int, str, str, dict[str, int]]] = field(default_factory=list)

    def add(self, key: str, **operands: int) -> None:
        self.words.append(RISCV.instructions[key].encode(**operands))

    def label(self, name: str) -> None:
        self.labels[name] = 4 * len(self.words)

    def go(self, key: str, label: str, **operands: int) -> None:
        self.jumps.append((len(self.words), key, label, operands))
        self.words.append(0)

    def address(self, register: int, value: int) -> None:
        """An address at or above 2 GiB, or any below: lui sign-extends, so the upper half is cleared."""
        low = (value & 0xFFF ^ 0x800) - 0x800
        self.add("lui", rd=register, imm=(value - low & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31))
        self.add("addi", rd=register, rs1=register, imm=low)
        self.add("slli/64", rd=register, rs1=register, shamt=32)
        self.add("srli/64", rd=register, rs1=register, shamt=32)

    def to_bytes(self) -> bytes:
        for index, key, label, operands in self.jumps:
            self.words[index] = RISCV.instructions[key].encode(imm=self.labels[label] - 4 * index, **operands)
        return b"".join(word.to_bytes(4, "little") for word in self.words)


def driver(count: int) -> bytes:
    """The machine-mode program that runs `count` records."""
    code = Code()
    record, scratch = 31, 30
    code.go("jal", "begin", rd=0)
    code.label("handler")  # x31 and the record change places
    code.add("csrrw", rd=record, rs1=record, csr=NUMBERS["mscratch"])
    for register in range(1, 31):
        code.add("sd", rs1=record, rs2=register, imm=OUT + 8 * register)
    code.add("csrrs", rd=scratch, rs1=0, csr=NUMBERS["mscratch"])
    code.add("sd", rs1=record, rs2=scratch, imm=OUT + 8 * 31)
    for index, name in enumerate(LOGGED):
        code.add("csrrs", rd=scratch, rs1=0, csr=NUMBERS[name])
        code.add("sd", rs1=record, rs2=scratch, imm=OUT + 8 * (32 + index))
    code.add("addi", rd=record, rs1=record, imm=RECORD_SIZE)
    code.label("next")
    code.address(scratch, RECORDS + RECORD_SIZE * count)
    code.go("beq", "finish", rs1=record, rs2=scratch)
    code.add("csrrw", rd=0, rs1=record, csr=NUMBERS["mscratch"])
    # Floating point on, so that fcsr can be written; memory as it is, so that the record can be read.
    code.add("lui", rd=scratch, imm=3 << FS_BIT)
    code.add("csrrw", rd=0, rs1=scratch, csr=NUMBERS["mstatus"])
    code.add("csrrw", rd=0, rs1=0, csr=NUMBERS["satp"])
    for index, name in enumerate(CONTROL):
        code.add("ld", rd=scratch, rs1=record, imm=8 * index)
        code.add("csrrw", rd=0, rs1=scratch, csr=NUMBERS[name])
    code.add("sfence.vma")
    code.add("ld", rd=scratch, rs1=record, imm=8 * DIRECT)
    code.go("bne", "direct", rs1=scratch, rs2=0)
    for register in range(1, 32):
        code.add("ld", rd=register, rs1=record, imm=8 * (X + register))
    code.add("mret")
    code.label("direct")
    for register in range(1, 32):
        code.add("ld", rd=register, rs1=record, imm=8 * (X + register))
    code.add("csrrs", rd=0, rs1=SET_MSTATUS, csr=NUMBERS["mstatus"])
    code.add("jalr", rd=0, rs1=JUMP, imm=0)
    code.label("begin")
    code.address(scratch, CODE + 4)
    code.add("csrrw", rd=0, rs1=scratch, csr=NUMBERS["mtvec"])
    code.address(record, RECORDS)
    code.go("jal", "next", rd=0)
    code.label("finish")
    code.address(scratch, FINISHER)
    code.address(record, FINISHED)
    code.add("sw", rs1=scratch, rs2=record, imm=0)
    code.label("for ever")
    code.go("jal", "for ever", rd=0)
    program = code.to_bytes()
    if len(program) > SUPERVISOR_HANDLER - CODE:
        raise ValueError(f"the driver's {len(program)} bytes run into the supervisor's handler")
    return program.ljust(SUPERVISOR_HANDLER - CODE, b"\0") + bits("ecall")


def trapping_halfwords(random: Random, count: int) -> bytes:
    """Halfwords of reserved encodings, nearly all different: data that does no harm when it is executed."""
    return b"".join((0x8000 | random.getrandbits(11) << 2).to_bytes(2, "little") for _ in range(count))


class Experiments:
    """Makes records and the memory around them; the same arguments make the same.

    `for_qemu` leaves out what QEMU 7.2 gets wrong, or decides otherwise where the specification leaves it open; each
    such place says what it is. Between engines of celaje's, all of it is compared.
    """

    def __init__(self, seed: int, count: int, for_qemu: bool = True) -> None:
        self.seed = seed
        self.for_qemu = for_qemu
        self.random = random = Random(seed)
        self.locked = random.random() < 0.3
        self.lock_entry = (0x80 | random.choice((0, 1, 4, 5, 7, 3)) | random.choice((2, 3)) << 3, self._pmp_address())
        self.tables = self._tables()
        self.pool = trapping_halfwords(random, 2048 * POOL_PAGES)
        self.records = [self._record(index) for index in range(count)]

    # ---- memory

    def image(self) -> bytes:
        """Memory from MEMORY to COMPARED_END as it is at the beginning."""
        memory = bytearray(COMPARED_END - MEMORY)

        def put(address: int, data: bytes) -> None:
            memory[address - MEMORY : address - MEMORY + len(data)] = data

        put(CODE, driver(len(self.records)))
        for index, record in enumerate(self.records):
            code = record.instruction.to_bytes(record.length, "little") + bits("ecall") * 2
            put(SLOTS + 16 * index, code)
            words = [record.control[name] for name in CONTROL] + [int(record.direct)]
            words += [0] * (X - len(words)) + record.registers
            put(RECORDS + RECORD_SIZE * index, b"".join(word.to_bytes(8, "little") for word in words))
        for address, table in self.tables.items():
            put(address, b"".join(entry.to_bytes(8, "little") for entry in table))
        put(POOL, self.pool)
        return bytes(memory)

    def _entry(self, address: int) -> int:
        """A leaf with random permissions, wrong in one way or another now and then."""
        random = self.random
        flags = random.choice((R, R | W, R | W | EXECUTE, EXECUTE, R | EXECUTE, W, W | EXECUTE, R | W | EXECUTE))
        flags |= random.choice((V, V, V, V, V, V, V, 0)) | random.choice((0, U)) | random.choice((0, G))
        flags |= random.choice((0, A, A | D, A | D, D)) | random.getrandbits(2) << 8
        reserved = 1 << random.randrange(54, 64) if random.random() < 0.03 else 0
        return address >> 12 << 10 | flags | reserved

    def _tables(self) -> dict[int, list[int]]:
        random = self.random
        tables = {at: [0] * 512 for at in (ROOT_39, ROOT_48, ROOT_57, MEGAPAGES)}
        whole = V | R | W | EXECUTE | A | D
        tables[ROOT_57][0] = ROOT_48 >> 12 << 10 | V
        tables[ROOT_48][0] = ROOT_39 >> 12 << 10 | V
        tables[ROOT_39][WINDOW >> 30] = MEGAPAGES >> 12 << 10 | V
        tables[ROOT_39][2] = CODE >> 12 << 10 | whole
        tables[ROOT_39][3] = CODE >> 12 << 10 | whole | U
        for index in range(PAGE_TABLES):
            at = PAGES + 0x1000 * index
            tables[MEGAPAGES][index] = at >> 12 << 10 | V | random.choice((0, 0, 0, 0, 0, A, U, D, G))
            tables[at] = [self._entry(POOL + 0x1000 * random.randrange(POOL_PAGES)) for _ in range(512)]
        for index in range(PAGE_TABLES, 12):  # leaves of 2 MiB, a few of them misaligned
            tables[MEGAPAGES][index] = self._entry(POOL + (0x1000 if random.random() < 0.2 else 0))
        tables[ROOT_39][4] = self._entry(CODE)
        return tables

    def _pmp_address(self) -> int:
        """Somewhere in the pool, small or as large as a few pages (as pmpaddr holds it)."""
        random = self.random
        start = POOL + random.randrange(0, 0x1000 * POOL_PAGES, 4)
        ones = (1 << random.choice((0, 0, 1, 2, 5, 9, 10, 11))) - 1
        return start >> 2 & ~ones | ones >> 1 if ones else start >> 2

    # ---- records

    def _virtual(self) -> int:
        """Where the instruction accesses memory."""
        random = self.random
        offset = random.choice((0, 0xFF8, 0xFFC, 0xFFE, 0xFFF, random.randrange(4096), random.randrange(0, 4096, 8)))
        kind = random.random()
        if kind < 0.35:
            return POOL + 0x1000 * random.randrange(POOL_PAGES) + offset
        if kind < 0.85:
            return WINDOW + (random.randrange(PAGE_TABLES) << 21) + (random.randrange(512) << 12) + offset
        if kind < 0.93:
            return WINDOW + (random.randrange(PAGE_TABLES, 14) << 21) + offset
        if kind < 0.96:
            return (4 << 30) + (POOL - CODE) + offset
        return (random.getrandbits(64) & ~0xFFF) + offset if random.random() < 0.5 else 1 << random.randrange(36, 64)

    def _record(self, index: int) -> Record:
        random = self.random
        mode = random.choice((0, 1, 1, 3, 3))
        slot = SLOTS + 16 * index
        scheme = random.choice((0, 8, 8, 8, 9, 10))
        root = {0: 0, 8: ROOT_39, 9: ROOT_48, 10: ROOT_57}[scheme]
        entry = slot + USER_ALIAS if mode == 0 and scheme else slot
        pending = sum(1 << number for number in SUPERVISOR_INTERRUPTS if random.random() < 0.1)
        if self.for_qemu:  # of two, it takes the one with the lower number first
            pending &= -pending
        status = sum(bit for bit in (SIE, SPIE, MPIE, SPP, SUM, MXR, TVM, TW, TSR) if random.random() < 0.4)
        status |= mode << MPP_BIT | random.choice((0, 1, 3, 3)) << FS_BIT
        control = {
            "medeleg": sum(1 << cause for cause in DELEGABLE if random.random() < 0.5),
            "mideleg": sum(1 << number for number in SUPERVISOR_INTERRUPTS if random.random() < 0.5),
            "mie": sum(1 << number for number in SUPERVISOR_INTERRUPTS if random.random() < 0.7) if pending else 0,
            "mip": pending,
            "satp": scheme << 60 | random.getrandbits(4) << 44 | root >> 12,
            "menvcfg": random.choice((0, 1, 3)) << 4 | random.getrandbits(2) << 6,
            "senvcfg": random.choice((0, 1, 3)) << 4 | random.getrandbits(2) << 6,
            "mcounteren": random.getrandbits(3),
            "scounteren": random.getrandbits(3),
            "stvec": SUPERVISOR_HANDLER,
            "mepc": entry,
            "sepc": slot + (4 if random.random() < 0.5 else 6),
            "sscratch": values.register(random),
            "scause": 0,
            "stval": 0,
            "mcause": 0,
            "mtval": 0,
            "fcsr": random.randrange(5) << 5 | random.getrandbits(5),
            "mstatus": status,
        }
        if self.for_qemu:  # what it has of these is not what they are for
            control["menvcfg"] = control["senvcfg"] = 0
        self._protection(control)
        # Patterns that trap when executed, since stores put them where jumps may go.
        registers = [int.from_bytes(trapping_halfwords(random, 4), "little") for _ in range(32)]
        registers[0] = 0
        direct = mode == 3 and random.random() < 0.8
        if direct:
            control["mstatus"] = status & ~(3 << MPP_BIT) | random.choice((0, 1, 1, 3)) << MPP_BIT
            registers[SET_MSTATUS] = random.choice((0, MPRV))
            registers[JUMP] = slot
            control["mepc"] = slot + 4
        record = Record(control, registers, 0, 4, direct)
        self._choose_instruction(record)
        record.about = f"mode {mode}, {'jump' if direct else 'mret'}, scheme {scheme}"
        return record

    def _protection(self, control: dict[str, int]) -> None:
        """Entry 0 lets everybody at driver, records and tables; 1 to 5 are random; 7 is for all else."""
        random = self.random
        configuration = [0x1F] + [0] * (PMP_ENTRIES - 1)
        addresses = [CODE >> 2 | (1 << 19) - 1] + [0] * (PMP_ENTRIES - 1)  # 4 MiB
        if random.random() < 0.5:
            for index in range(1, 6):
                if random.random() < 0.5:
                    permissions = random.choice((0, 1, 3, 4, 5, 7))
                    configuration[index] = permissions | random.choice((0, 1, 2, 3, 3)) << 3
                addresses[index] = self._pmp_address()
        if self.locked:
            configuration[6], addresses[6] = self.lock_entry
        configuration[7] = 0x1F if random.random() < 0.95 else 0
        addresses[7] = (1 << 54) - 1
        control["pmpcfg0"] = int.from_bytes(bytes(configuration), "little")
        for index, address in enumerate(addresses):
            control[f"pmpaddr{index}"] = address

    def _choose_instruction(self, record: Record) -> None:
        random = self.random
        kind = random.random()
        base = random.randrange(1, SET_MSTATUS)
        other = random.choice([r for r in range(1, SET_MSTATUS) if r != base])
        if kind < 0.55:
            key = random.choice(MEMORY_INSTRUCTIONS)
            # QEMU takes faults of atomics for those of loads, and tries the load first; without a reservation,
            # store-conditional does not look at its address.
            while key.startswith(("amo", "sc.")) and (self.for_qemu or not key.startswith(KEEPING_PATTERNS)):
                key = random.choice(MEMORY_INSTRUCTIONS)
            entry = RISCV.instructions[key]
            operands = {name: other for name in entry.operands if name not in ("rs1", "imm")}
            record.registers[base] = self._virtual()
            record.instruction = entry.encode(rs1=base, **operands)
            if self.for_qemu:
                self._avoid_misalignment(record, base)
        elif kind < 0.7:
            record.registers[base] = self._virtual()
            record.instruction = RISCV.instructions["jalr"].encode(rd=other, rs1=base, imm=random.choice((0, 1)))
        elif kind < 0.82:
            self._control_register(record, other)
        elif kind < 0.92:
            key = random.choice(SYSTEM)
            operands = {"rs1": base, "rs2": other} if key.endswith(".vma") else {}
            record.instruction = RISCV.instructions[key].encode(**operands)
            if key == "wfi":  # something to wake up for, enabled or not
                record.control["mip"] = record.control["mie"] = 1 << 1
            if self.for_qemu and key in ("mret", "sret"):  # it does not clear MPRV
                record.registers[SET_MSTATUS] = 0
            if self.for_qemu and key == "sfence.w.inval":  # it lets the user execute it
                record.instruction = RISCV.instructions["fence.i"].encode()
        elif kind < 0.94 and not self.for_qemu:  # since QEMU 8.0
            key = random.choice(("cbo.zero", "cbo.clean", "cbo.flush", "cbo.inval"))
            record.registers[base] = self._virtual()
            record.instruction = RISCV.instructions[key].encode(rs1=base)
        elif kind < 0.96:
            decode = RISCV.decoder(64)
            record.instruction = random.getrandbits(16) << 16 | 0x8000 | random.getrandbits(11) << 2
            if random.random() < 0.5:  # a reserved width of load or store
                record.instruction = RISCV.instructions["ld"].match | 7 << 12 | random.getrandbits(5) << 7
            assert decode(record.instruction) is None
        else:
            key = random.choice(("fadd.d", "fcvt.w.s", "feq.s", "fmv.x.d", "fsgnj.d"))
            entry = RISCV.instructions[key]
            operands = {name: base if name == "rd" else 1 for name in entry.operands if name != "rm"}
            if "rm" in entry.operands:
                operands["rm"] = random.randrange(8)
            record.instruction = entry.encode(**operands)

    def _avoid_misalignment(self, record: Record, base: int) -> None:
        """QEMU checks physical memory protection for an access that crosses a page as a whole, and before it
        translates the second page."""
        crosses = record.registers[base] % 0x1000 > 0xFF8
        if crosses and self.locked:
            record.registers[base] &= ~7
        elif crosses:
            record.control["pmpcfg0"] &= 0xFF00_0000_0000_00FF

    def _control_register(self, record: Record, register: int) -> None:
        random = self.random
        name = random.choice(COMPARABLE_REGISTERS)
        key = random.choice(("csrrw", "csrrs", "csrrc"))
        if name in ("satp", "mstatus", "sstatus", "mie", "mip", "sie", "sip", "mideleg", "mtvec"):
            # Read only: what would happen next is not this experiment's matter.
            key, source = "csrrs", 0
        else:
            source = random.choice((0, register))
        if self.for_qemu and name in ("sepc", "mepc", "menvcfg"):
            source = 0  # it lets the lowest bit be set, and keeps a timer's pending bit when STCE is set
        record.registers[register] = values.register(random)
        record.instruction = RISCV.instructions[key].encode(rd=random.randrange(1, 30), rs1=source, csr=NUMBERS[name])
