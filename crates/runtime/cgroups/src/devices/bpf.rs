//! The device table as a BPF program of type CGROUP_DEVICE (linux/bpf.h, `struct bpf_cgroup_dev_ctx`).
//!
//! The program gets `{ access << 16 | type, major, minor }` as three 32-bit words and returns 1 to allow.
//! Registers: r1 context and scratch, r2 type, r3 access, r4 major, r5 minor, r0 the answer.

use corten_sys::bpf::Instruction;

use super::{Access, Kind, Table};

/// A program for bpf(2).
pub type Program = Vec<Instruction>;

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND_IMMEDIATE: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const MOVE: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const MOVE_IMMEDIATE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// Compiles the table: a test per exception, then the default.
#[must_use]
pub fn program(table: &Table) -> Program {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        op(LOAD_WORD, 3, 1, 0, 0),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for (device, access) in &table.exceptions {
        exception(&mut program, *device, *access, table.allow_by_default);
    }
    program.extend([op(MOVE_IMMEDIATE, 0, 0, 0, table.allow_by_default.into()), op(EXIT, 0, 0, 0, 0)]);
    program
}

fn exception(program: &mut Program, device: super::Device, access: Access, allow_by_default: bool) {
    let start = program.len();
    let kind = if device.kind == Kind::Block { 1 } else { 2 };
    program.push(op(JUMP_NOT_EQUAL, 2, 0, 0, kind));
    if access != Access::ALL {
        program.extend([op(MOVE, 1, 3, 0, 0), op(AND_IMMEDIATE, 1, 0, 0, access.bits().into())]);
        // Allowed if all that is wanted is listed; denied if any of it is.
        program.push(if allow_by_default {
            op(JUMP_EQUAL, 1, 0, 0, 0)
        } else {
            op(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0)
        });
    }
    for (register, number) in [(4, device.major), (5, device.minor)] {
        if let Some(number) = number {
            program.push(op(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    program.extend([op(MOVE_IMMEDIATE, 0, 0, 0, (!allow_by_default).into()), op(EXIT, 0, 0, 0, 0)]);
    // All tests lead to the instruction after this exception if they fail.
    let end = program.len();
    for (index, instruction) in program.iter_mut().enumerate().skip(start) {
        if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            instruction.offset = i16::try_from(end - index - 1).expect("an exception has few instructions");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Device;

    /// Just enough of a BPF machine.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i64::from(i.immediate).cast_unsigned();
            at += 1;
            let jump = match i.code {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(i.offset).expect("positive") / 4].into();
                    false
                }
                AND_IMMEDIATE => {
                    registers[to] &= immediate;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= immediate;
                    false
                }
                MOVE => {
                    registers[to] = registers[from];
                    false
                }
                MOVE_IMMEDIATE => {
                    registers[to] = immediate;
                    false
                }
                JUMP_NOT_EQUAL => registers[to] != immediate,
                JUMP_EQUAL => registers[to] == immediate,
                JUMP_NOT_EQUAL_REGISTER => registers[to] != registers[from],
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            };
            if jump {
                at += usize::try_from(i.offset).expect("forward");
            }
        }
    }

    fn table(allow_by_default: bool, exceptions: &[(Kind, Option<u32>, Option<u32>, Access)]) -> Table {
        let device = |(kind, major, minor, access)| (Device { kind, major, minor }, access);
        Table { allow_by_default, exceptions: exceptions.iter().copied().map(device).collect() }
    }

    #[test]
    fn an_allow_list() {
        let read_write = Access(Access::READ.0 | Access::WRITE.0);
        let program = program(&table(
            false,
            &[
                (Kind::Char, Some(1), Some(3), read_write),
                (Kind::Block, None, None, Access::MKNOD),
                (Kind::Char, Some(136), None, Access::ALL),
            ],
        ));
        for (kind, access, major, minor, expected) in [
            (2, 2, 1, 3, 1),   // read null
            (2, 6, 1, 3, 1),   // read and write it
            (2, 7, 1, 3, 0),   // also make it
            (2, 2, 1, 5, 0),   // another
            (1, 2, 1, 3, 0),   // a block device of that number
            (1, 1, 8, 1, 1),   // make any block node
            (1, 3, 8, 1, 0),   // and read it
            (2, 7, 136, 9, 1), // any pty
            (2, 7, 137, 9, 0),
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                expected,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn a_deny_list() {
        let program = program(&table(true, &[(Kind::Block, Some(8), None, Access::WRITE)]));
        for (kind, access, major, expected) in
            [(1, 4, 8, 0), (1, 6, 8, 0), (1, 2, 8, 1), (1, 4, 9, 1), (2, 4, 8, 1)]
        {
            assert_eq!(run(&program, kind, access, major, 0), expected, "{kind} {access} {major}");
        }
    }

    #[test]
    fn the_largest_minor() {
        let program = program(&table(false, &[(Kind::Char, Some(10), Some(0xf_ffff), Access::ALL)]));
        assert_eq!(run(&program, 2, 2, 10, 0xf_ffff), 1);
    }
}
