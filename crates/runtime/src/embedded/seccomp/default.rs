//! The default profile: what containerd and Docker allow containers.
//!
//! `default.txt` lists the calls that are allowed without conditions, below the capability that they need; the rest is
//! here.

use super::{Argument, Condition, Profile, Rule, SYS_ADMIN};

const CALLS: &str = include_str!("default.txt");

/// Clone flags that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;
/// Personalities that change nothing of what is allowed; the last one asks which it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Families of sockets that are not for containers: the kernel's cryptography, virtual machines.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

pub(super) fn profile() -> Profile {
    let mut syscalls: Vec<Rule> =
        sections().map(|(capability, names)| allow(names, Vec::new(), capability)).collect();
    syscalls.push(allow(vec!["socket"], vec![compare("SCMP_CMP_LT", AF_ALG, 0)], None));
    syscalls.push(allow(vec!["socket"], vec![compare("SCMP_CMP_EQ", AF_ALG + 1, 0)], None));
    syscalls.push(allow(vec!["socket"], vec![compare("SCMP_CMP_GT", AF_VSOCK, 0)], None));
    for personality in PERSONALITIES {
        syscalls.push(allow(vec!["personality"], vec![compare("SCMP_CMP_EQ", personality, 0)], None));
    }
    let unprivileged = Condition { caps: vec![SYS_ADMIN.to_owned()], ..Condition::default() };
    syscalls.push(Rule {
        excludes: unprivileged.clone(),
        ..allow(vec!["clone"], vec![compare("SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, 0)], None)
    });
    // Its flags are in memory, where a filter cannot look; programs fall back to `clone`.
    syscalls.push(Rule {
        names: vec!["clone3".to_owned()],
        action: "SCMP_ACT_ERRNO".to_owned(),
        errno_ret: Some(ENOSYS),
        excludes: unprivileged,
        ..Rule::default()
    });
    Profile { default_action: "SCMP_ACT_ERRNO".to_owned(), default_errno_ret: None, syscalls }
}

fn allow(names: Vec<&str>, args: Vec<Argument>, capability: Option<&str>) -> Rule {
    Rule {
        names: names.into_iter().map(str::to_owned).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        args,
        includes: Condition {
            caps: capability.map(str::to_owned).into_iter().collect(),
            ..Condition::default()
        },
        ..Rule::default()
    }
}

fn compare(op: &str, value: u64, value_two: u64) -> Argument {
    Argument { index: 0, value, value_two, op: op.to_owned() }
}

/// The capability that calls need, if any, and the calls.
fn sections() -> impl Iterator<Item = (Option<&'static str>, Vec<&'static str>)> {
    CALLS
        .split('[')
        .filter_map(|section| section.split_once(']'))
        .map(|(head, names)| (Some(head).filter(|head| *head != "any"), names.split_whitespace().collect()))
}
