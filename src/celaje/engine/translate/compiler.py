"""The compile service: LLVM, in a process of its own.

`python -m celaje.engine.translate.compiler FILE` renders the program, compiles it for this host and writes it to FILE.
A machine's process never loads LLVM: it maps what this wrote (`code_cache.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from llvmlite import binding

from celaje.engine.translate.code_cache import write_program
from celaje.engine.translate.link import link
from celaje.engine.translate.program import build_program


def compile_text(text: str) -> bytes:
    """An ELF object for this host, position-independent, from LLVM IR."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(text)
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="small",
    )
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def main() -> None:
    """Compile the RISC-V program into the file that is named on the command line."""
    program = build_program()
    linked = link(compile_text(program.text))
    offsets = [linked.symbols[name] for name in program.handlers]
    write_program(Path(sys.argv[1]), linked.code, linked.symbols["run"], offsets, program.handlers, program.tables)


if __name__ == "__main__":
    main()
