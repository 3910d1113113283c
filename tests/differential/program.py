"""Random user-mode programs out of the instruction tables.

A program is a list of items. Each item is a piece of code that can stand alone: an instruction with whatever it needs
before it (a base address, a rounding mode), a forward branch with what it jumps over, a loop that ends. A prefix of the
list is a program too, which is how the instruction that two engines disagree about is found.

One register, the anchor, always points into the data; which one it is changes from program to program.

Results are soon overwritten, and flags accrue. So many are noted: added to a register that nothing else writes, stored
beside the anchor, flags read and cleared.

Half of the programs are dense: few registers, the instructions that compilers emit most, memory accessed through the
anchor, so that each instruction depends on the ones before it, as pairs that an engine treats as one would have it.

    DATA           constants that are only read
    ANCHOR - 520   fcsr, then x0 to x31, then f0 to f31, eight bytes each: loaded at the start, stored at the end
    ANCHOR         memory that the program reads and writes
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random

from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import F_OPERANDS, X_OPERANDS, Instruction
from tests.differential import values
from tests.differential.elf import Executable

CODE, DATA = 0x10000, 0x80000
ANCHOR = DATA + 0x800
DATA_END = ANCHOR + 0x1800  # two page edges inside
FCSR, INTEGERS, FLOATS = ANCHOR - 520, ANCHOR - 512, ANCHOR - 256
MEMORY_END = DATA + 0x10000

EXTENSIONS = ("I", "M", "A", "F", "D", "C", "Zcd", "Zcf", "Zicsr", "Zifencei", "Zba", "Zbb", "Zbs", "Zicond")
STATIC_AND_DYNAMIC_ROUNDING = (0, 1, 2, 3, 4, 7)
CONDITIONAL = ("beq", "bne", "blt", "bge", "bltu", "bgeu")
FFLAGS, FRM, FCSR_NUMBER = 1, 2, 3
SYSTEM_OPCODE = 0x73
# Random operands would make these stop the program; traps are for the machine-mode programs.
EXCLUDED = ("ecall", "ebreak", "c.ebreak")
COMMON = (
    *("ld", "sd", "lw", "sw", "lbu", "lh", "sb", "fld", "fsd", "add", "addi", "addiw", "addw", "sub", "subw", "mul"),
    *("mulw", "mulhu", "remu", "and", "andi", "or", "xor", "slli", "srli", "sltu", "sltiu", "lui", "auipc", "flt.d"),
    *("fadd.d", "fsub.d", "fmul.d", "fdiv.d", "fsqrt.d", "fmadd.d", "fnmsub.d", "fmv.d.x", "csrrw", "csrrwi"),
    *("beq", "bne", "blt", "bge", "bltu", "bgeu", "jal", "jalr"),
)
DENSE_REGISTERS = (2, *range(8, 16))
WRITE_CALL, EXIT_CALL = 64, 93
A0, A1, A2, A7 = 10, 11, 12, 17


@dataclass(frozen=True)
class Item:
    """Code that can stand alone. `instructions` counts what is written, not what a loop repeats."""

    code: bytes
    instructions: int


def bits(key: str, **operands: int) -> bytes:
    """One instruction as it stands in memory."""
    entry = RISCV.instructions[key]
    return entry.encode(**operands).to_bytes(entry.length, "little")


def constant(register: int, value: int) -> bytes:
    """Two instructions that set a register to a value below 2**31 - 2048."""
    low = (value & 0xFFF ^ 0x800) - 0x800
    return bits("lui", rd=register, imm=value - low) + bits("addi", rd=register, rs1=register, imm=low)


def programmable(xlen: int, extensions: Collection[str], without: Collection[str]) -> list[tuple[str, Instruction]]:
    """Keys and entries of the instructions that programs are made of."""
    return [
        (key, entry)
        for key, entry in RISCV.instructions.items()
        if xlen in entry.xlens and entry.extension in extensions
        if entry.name not in EXCLUDED and entry.name not in without
        if entry.extension == "Zicsr" or entry.length == 2 or entry.match & 0x7F != SYSTEM_OPCODE
    ]


class Generator:
    """Makes items; `protected` registers are not written."""

    def __init__(self, random: Random, xlen: int, extensions: Collection[str], without: Collection[str]) -> None:
        self.random = random
        self.xlen = xlen
        self.dense = random.random() < 0.5
        self.usable = DENSE_REGISTERS if self.dense else tuple(range(1, 32))
        self.anchor = random.choice(self.usable)
        self.sum = random.choice([r for r in range(1, 32) if r != self.anchor])
        self.fixed = frozenset({self.anchor, self.sum})
        self.decode = RISCV.decoder(xlen)
        entries = programmable(xlen, extensions, without)
        common = [(key, entry) for key, entry in entries if self._full_name(entry) in COMMON]
        self.entries = common if self.dense and common else entries

    @staticmethod
    def _full_name(entry: Instruction) -> str:
        return RISCV.instructions[entry.base].name if entry.base else entry.name

    def register(self, protected: frozenset[int]) -> int:
        """One that may be written, not x0."""
        return self.random.choice([r for r in self.usable if r not in protected])

    def item(self, protected: frozenset[int], depth: int = 0) -> Item:
        """Any item."""
        while True:
            key, entry = self.random.choice(self.entries)
            if depth < 2 and self.random.random() < 0.02:
                return self._loop(protected, depth)
            name = self._full_name(entry)
            maker: Callable[[str, Instruction, frozenset[int], int], Item | None]
            if name in CONDITIONAL or name in ("jal", "jalr"):
                if depth > 1:
                    continue
                maker = self._control_transfer
            elif entry.extension == "Zicsr":
                maker = self._control_register
            elif name.startswith(("lr.", "sc.")):
                maker = self._reservation
            elif "(rs1)" in entry.syntax:
                maker = self._memory
            else:
                maker = self._computation
            made = maker(key, entry, protected, depth)
            if made is not None:
                return made

    def body(self, protected: frozenset[int], depth: int, most: int) -> Item:
        """A few items in a row."""
        items = [self.item(protected, depth) for _ in range(self.random.randint(1, most))]
        return Item(b"".join(i.code for i in items), sum(i.instructions for i in items))

    # ---- encodings

    def _random_bits(self, entry: Instruction, protected: frozenset[int]) -> tuple[int, dict[str, int]] | None:
        """An encoding with random operands, immediates at their edges now and then; None where a register is taken."""
        noise = self.random.getrandbits(32)
        for name in ("imm", "shamt"):
            if name in entry.operands and self.random.random() < 0.3:
                places = entry.operands[name].insert(-1)
                noise = noise & ~places | self.random.choice((0, places, entry.operands[name].insert(1)))
        if "rm" in entry.operands:
            places = entry.operands["rm"].insert(7)
            noise = noise & ~places | entry.operands["rm"].insert(self.random.choice(STATIC_AND_DYNAMIC_ROUNDING))
        encoded = (entry.match | noise & ~entry.mask) & (1 << 8 * entry.length) - 1
        if self.dense:
            encoded = self._with_few_registers(entry, encoded)
        decoded = self.decode(encoded)
        if decoded is None or decoded.instruction is not entry or decoded.operands.get("rd") in protected:
            return None
        return encoded, decoded.operands

    def _with_few_registers(self, entry: Instruction, encoded: int) -> int:
        for name, field in entry.operands.items():
            if name in X_OPERANDS + F_OPERANDS and field.pieces:
                chosen = self.random.choice(self.usable)
                if name == "rs1" and "(rs1)" in entry.syntax and self.random.random() < 0.8:
                    chosen = self.anchor
                if field.extract(encoded & ~field.insert(-1 + field.plus) | field.insert(chosen)) == chosen:
                    encoded = encoded & ~field.insert(-1 + field.plus) | field.insert(chosen)
        return encoded

    def _computation(self, key: str, entry: Instruction, protected: frozenset[int], depth: int) -> Item | None:
        made = self._random_bits(entry, protected)
        if made is None:
            return None
        encoded, operands = made
        before = b""
        count = 1
        for name, register in operands.items():
            # Fresh operands, since those that instructions leave behind soon look all alike.
            if self.random.random() < (0.05 if self.dense else 0.4):
                if name.startswith("frs"):
                    before += self._pool_load("fld", "frd", register)
                    count += 1
                elif name in ("rs1", "rs2") and register not in protected and register:
                    before += self._pool_load("ld" if self.xlen == 64 else "lw", "rd", register)
                    count += 1
        after, noted = self._note(operands, protected)
        return Item(before + encoded.to_bytes(entry.length, "little") + after, count + noted)

    def _note(self, operands: dict[str, int], protected: frozenset[int]) -> tuple[bytes, int]:
        """Code that keeps a result and the flags, and how many instructions it has."""
        if self.random.random() < (0.9 if self.dense else 0.5):
            return b"", 0
        if operands.get("rd"):
            code, count = bits("add", rd=self.sum, rs1=self.sum, rs2=operands["rd"]), 1
        elif "frd" in operands:
            slot = 8 * self.random.randrange(256)
            code, count = bits("fsd", frs2=operands["frd"], rs1=self.anchor, imm=slot), 1
        else:
            return b"", 0
        if "rm" in operands or "frs1" in operands:
            flags = self.register(protected)
            code += bits("csrrwi", rd=flags, uimm=0, csr=FFLAGS) + bits("add", rd=self.sum, rs1=self.sum, rs2=flags)
            count += 2
        return code, count

    def _pool_load(self, key: str, operand: str, register: int) -> bytes:
        offset = 8 * self.random.randrange((FCSR - DATA) // 8) + DATA - ANCHOR
        return bits(key, **{operand: register, "rs1": self.anchor, "imm": offset})

    # ---- memory

    def _target(self, size: int, writes: bool, aligned: bool) -> int:
        """An address for `size` bytes, near a page edge now and then."""
        first = ANCHOR if writes else DATA
        if self.random.random() < 0.2:
            address = self.random.choice((DATA + 0x1000, DATA + 0x2000)) - self.random.randrange(size + 1)
        else:
            address = self.random.randrange(first, DATA_END - 64)
        return address & -size if aligned or self.random.random() < 0.4 else address

    def _memory(self, key: str, entry: Instruction, protected: frozenset[int], depth: int) -> Item | None:
        made = self._random_bits(entry, protected)
        if made is None:
            return None
        encoded, operands = made
        base, offset = operands["rs1"], operands.get("imm", 0)
        code = encoded.to_bytes(entry.length, "little")
        writes = ("rd" not in operands and "frd" not in operands) or entry.extension == "A"
        if base == self.anchor and entry.extension != "A":
            # Stores must not reach the constants; no access may leave the data.
            return Item(code, 1) if offset >= 0 or (not writes and offset >= DATA - ANCHOR) else None
        if base in protected or base == 0 or (writes and operands.get("rs2") == base):
            return None
        size = 8 if key.endswith(".d") else 4 if entry.extension == "A" else self.random.choice((1, 2, 4, 8))
        target = self._target(size, writes, aligned=entry.extension == "A")
        return Item(constant(base, target - offset) + code, 3)

    def _reservation(self, key: str, entry: Instruction, protected: frozenset[int], depth: int) -> Item | None:
        """Load-reserved with the store-conditional that belongs to it, or a store-conditional that must fail."""
        suffix = key[-1]
        size = 8 if suffix == "d" else 4
        base = self.register(protected)
        taken = protected | {base}
        target = self._target(size, writes=True, aligned=True)
        code, count = constant(base, target), 2
        if self.random.random() < 0.8:
            code += bits(f"lr.{suffix}", rd=self.register(taken), rs1=base)
            code += bits("add", rd=self.register(taken), rs1=self.random.randrange(32), rs2=self.random.randrange(32))
            count += 2
            if self.random.random() < 0.2:
                code += constant(base, target + self.random.choice((-8, 8)) if target > ANCHOR else target + 8)
                count += 2
        code += bits(f"sc.{suffix}", rd=self.register(protected), rs1=base, rs2=self.random.randrange(32))
        return Item(code, count + 1)

    # ---- control transfer

    def _control_transfer(self, key: str, entry: Instruction, protected: frozenset[int], depth: int) -> Item | None:
        body = self.body(protected, depth + 1, 4)
        made = self._random_bits(entry, protected)
        if made is None:
            return None
        operands = {n: v for n, v in made[1].items() if entry.operands[n].pieces}
        if ("imm" in entry.operands and "rs1" not in entry.operands) or entry.name.startswith(("b", "c.b")):
            operands["imm"] = len(body.code) + entry.length
            try:
                return Item(bits(key, **operands) + body.code, body.instructions + 1)
            except ValueError:  # farther than it can jump
                return None
        base = made[1]["rs1"]
        if base in protected or base == 0:
            return None
        # auipc's own address, its addition, the jump
        distance = len(body.code) + entry.length + (4 if entry.length == 4 else 8) + self.random.getrandbits(1)
        head = bits("auipc", rd=base, imm=0)
        if entry.length == 4:
            return Item(head + bits(key, **(operands | {"imm": distance})) + body.code, body.instructions + 2)
        head += bits("addi", rd=base, rs1=base, imm=distance)
        return Item(head + bits(key, **operands) + body.code, body.instructions + 3)

    def _loop(self, protected: frozenset[int], depth: int) -> Item:
        """A counter to zero; now and then something stands between it and the branch back."""
        counter = self.register(protected)
        inside = protected | {counter}
        body = self.body(inside, depth + 1, 6)
        after = self.body(inside, 2, 1) if self.random.random() < 0.5 else Item(b"", 0)
        code = body.code + bits("addi", rd=counter, rs1=counter, imm=-1) + after.code
        kind = self.random.randrange(5)
        if kind == 0 and 8 <= counter < 16 and len(code) <= 256:
            code += bits("c.bnez", rs1=counter, imm=-len(code))
        elif kind == 1:
            code += bits(self.random.choice(("blt", "bltu")), rs1=0, rs2=counter, imm=-len(code))
        elif kind == 2:  # the test at the head
            size = len(code)
            code = bits("beq", rs1=counter, rs2=0, imm=size + 8) + code
            code += bits("jal", rd=0, imm=-len(code))
        else:
            code += bits("bne", rs1=counter, rs2=0, imm=-len(code))
        start = bits("addi", rd=counter, rs1=0, imm=self.random.randint(1, 4))
        return Item(start + code, body.instructions + after.instructions + 3)

    # ---- control registers: those of floating point, never with a reserved rounding mode

    def _control_register(self, key: str, entry: Instruction, protected: frozenset[int], depth: int) -> Item | None:
        made = self._random_bits(entry, protected)
        if made is None:
            return None
        operands = made[1]
        number = self.random.choice((FFLAGS, FRM, FCSR_NUMBER))
        code, count = b"", 1
        if number != FFLAGS:
            if "uimm" in operands:
                if number == FRM:  # bits set or cleared in a mode could make a reserved one
                    operands["uimm"] = self.random.randrange(5) if key == "csrrwi" else 0
                elif key == "csrrwi":
                    operands["uimm"] &= 31
            elif key == "csrrw":
                source = self.register(protected)
                mode, flags = self.random.randrange(5), self.random.getrandbits(5)
                value = mode if number == FRM else mode << 5 | flags
                code, count = constant(source, value | self.random.getrandbits(20) << 8), 3
                operands["rs1"] = source
            else:
                operands["rs1"] = 0
        return Item(code + bits(key, **(operands | {"csr": number})), count)


@dataclass(frozen=True)
class Program:
    """A random program; the same seed makes the same one."""

    seed: int
    xlen: int
    items: tuple[Item, ...]
    anchor: int
    data: bytes

    @property
    def instructions(self) -> int:
        """Random instructions as written."""
        return sum(item.instructions for item in self.items)

    def executable(self, count: int | None = None) -> Executable:
        """A program of the first `count` items that ends by writing DATA to DATA_END to its standard output."""
        code = self._prologue() + b"".join(item.code for item in self.items[:count]) + self._epilogue()
        if CODE + len(code) > DATA:
            raise ValueError(f"{len(code)} bytes of code run into the data")
        image = code.ljust(DATA - CODE, b"\0") + self.data
        return Executable(CODE, image.ljust(MEMORY_END - CODE, b"\0"), CODE)

    def _registers(self, load: str, store: str, saving: bool) -> bytes:
        key, operand = (store, "rs2") if saving else (load, "rd")
        return b"".join(
            bits(key, **{operand: r, "rs1": self.anchor, "imm": INTEGERS + 8 * r - ANCHOR})
            for r in range(1, 32)
            if r != self.anchor
        )

    def _prologue(self) -> bytes:
        load, store = ("ld", "sd") if self.xlen == 64 else ("lw", "sw")
        scratch = 1 if self.anchor != 1 else 2
        code = constant(self.anchor, ANCHOR)
        code += bits("lw", rd=scratch, rs1=self.anchor, imm=FCSR - ANCHOR)
        code += bits("csrrw", rd=0, rs1=scratch, csr=FCSR_NUMBER)
        code += b"".join(bits("fld", frd=f, rs1=self.anchor, imm=FLOATS + 8 * f - ANCHOR) for f in range(32))
        return code + self._registers(load, store, saving=False)

    def _epilogue(self) -> bytes:
        load, store = ("ld", "sd") if self.xlen == 64 else ("lw", "sw")
        scratch = 1 if self.anchor != 1 else 2
        code = self._registers(load, store, saving=True)
        code += b"".join(bits("fsd", frs2=f, rs1=self.anchor, imm=FLOATS + 8 * f - ANCHOR) for f in range(32))
        code += bits("csrrs", rd=scratch, rs1=0, csr=FCSR_NUMBER)
        code += bits(store, rs2=scratch, rs1=self.anchor, imm=FCSR - ANCHOR)
        for register, value in ((A0, 1), (A1, DATA), (A2, DATA_END - DATA), (A7, WRITE_CALL)):
            code += constant(register, value)
        code += bits("ecall") + constant(A0, 0) + constant(A7, EXIT_CALL) + bits("ecall")
        return code


def random_program(
    seed: int, xlen: int, length: int, extensions: Collection[str] = EXTENSIONS, without: Collection[str] = ()
) -> Program:
    """A program of at least `length` random instructions, none of those that `without` names."""
    random = Random(seed)
    generator = Generator(random, xlen, extensions, without)
    items: list[Item] = []
    count = 0
    while count < length:
        items.append(generator.item(generator.fixed))
        count += items[-1].instructions
    words = [values.register(random) for _ in range((DATA_END - DATA) // 8)]
    words[(FCSR - DATA) // 8] = random.randrange(5) << 5 | random.getrandbits(5)
    data = b"".join(word.to_bytes(8, "little") for word in words)
    return Program(seed, xlen, tuple(items), generator.anchor, data)
