//! Seccomp filters (seccomp(2)) for the calling thread and the threads that it starts.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Seccomp;
use super::calls::{Call, Pages};

/// Why a filter is not in force.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It could not be compiled.
    #[error("{0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("{0}")]
    Install(#[from] seccompiler::Error),
}

/// Lets the calling thread make these calls only. A filter that is in force already stays so: what either refuses is refused.
pub(super) fn install(action: Seccomp, calls: &[Call]) -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(&compile(action, calls)?)?)
}

fn compile(action: Seccomp, calls: &[Call]) -> Result<BpfProgram, FilterError> {
    let otherwise = match action {
        Seccomp::Refuse => SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        Seccomp::Kill => SeccompAction::KillProcess,
        Seccomp::Log | Seccomp::Off => SeccompAction::Log,
    };
    let mut rules = BTreeMap::new();
    for call in calls {
        rules.insert(call.number, rules_for(call.pages)?);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// One of these has to hold; none is a call without conditions.
fn rules_for(pages: Pages) -> Result<Vec<SeccompRule>, FilterError> {
    // The third argument of mmap(2) and mprotect(2).
    let without = |protection: libc::c_int| {
        let mask = u64::from(protection.unsigned_abs());
        let operator = SeccompCmpOp::MaskedEq(mask);
        let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, operator, 0)?;
        SeccompRule::new(vec![condition])
    };
    Ok(match pages {
        Pages::Any => Vec::new(),
        Pages::NotExecutable => vec![without(libc::PROT_EXEC)?],
        Pages::NotBoth => vec![without(libc::PROT_EXEC)?, without(libc::PROT_WRITE)?],
    })
}
