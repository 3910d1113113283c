"""RISC-V: RV32 and RV64 IMAFDC with the extensions that Linux distributions for the RVA22 profile expect."""
