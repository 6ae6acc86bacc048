//! The seccomp filter: compiled from the bundle's profile, kept for exec.

use corten_seccomp::{Options, compile as compile_profile};
use corten_sys::seccomp::Instruction;

use oci_spec::runtime::{LinuxSeccomp, Spec};

use crate::{Error, Result, notify::Agent, plan::Plan};

/// A compiled filter with its flags.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) flags: u64,
    /// Who answers its notifications.
    pub(crate) agent: Option<Agent>,
}

/// Compiles the profile, if there is one.
pub(crate) fn compile(spec: &Spec, plan: &Plan) -> Result<Option<Filter>> {
    let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(None);
    };
    let program =
        compile_profile(profile, Options { fail_unknown: plan.strict_seccomp, ..Options::default() })
            .map_err(|e| Error::Seccomp(e.into()))?;
    let agent = program.notify.then(|| agent(profile)).transpose()?;
    for warning in &program.warnings {
        tracing::debug!("linux.seccomp: {warning}");
    }
    Ok(Some(Filter { instructions: program.filter, flags: program.flags, agent }))
}

fn agent(profile: &LinuxSeccomp) -> Result<Agent> {
    let Some(path) = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Error::Seccomp(Box::new(corten_seccomp::Error::NoListener)));
    };
    let metadata = profile.listener_metadata().clone().filter(|text| !text.is_empty());
    Ok(Agent { path, metadata })
}

/// The filter as bytes, in the kernel's own layout.
pub(crate) fn to_bytes(filter: Option<&Filter>) -> Vec<u8> {
    let instructions = filter.map_or(&[][..], |filter| &filter.instructions);
    let mut bytes = Vec::with_capacity(8 * instructions.len());
    for instruction in instructions {
        let ([a, b], [c, d, e, f]) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
        bytes.extend_from_slice(&[a, b, instruction.jt, instruction.jf, c, d, e, f]);
    }
    bytes
}

/// The way back; None if it isn't a filter.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let instruction = |chunk: &[u8]| match *chunk {
        [a, b, jt, jf, k0, k1, k2, k3] => Some(Instruction {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }),
        _ => None,
    };
    bytes.chunks(8).map(instruction).collect()
}
