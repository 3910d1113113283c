"""The engine for hosts that the tests do not run on: it compiles, and needs nothing from outside itself."""

from __future__ import annotations

import pytest
from llvmlite import binding

from celaje.engine.translate import host_float
from celaje.engine.translate.link import link
from celaje.engine.translate.program import build_program


def test_the_program_for_aarch64_compiles_to_one_block_without_relocations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_float, "this_host", lambda: host_float.Host("aarch64", fuses=True, rounds=True))
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    program = build_program(sequences=())
    module = binding.parse_assembly(program.text)
    module.verify()
    target = binding.Target.from_triple("aarch64-linux-gnu")
    machine = target.create_target_machine(cpu="neoverse-n1", opt=1, reloc="pic", codemodel="small")
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=1))
    passes.getModulePassManager().run(module, passes)
    linked = link(machine.emit_object(module))
    assert {"run", *program.handlers} <= set(linked.symbols)
