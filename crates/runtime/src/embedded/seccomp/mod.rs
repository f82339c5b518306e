//! Filters of system calls: from a profile in OCI's JSON form to programs that the kernel takes.
//!
//! Owns: the meaning of profiles, and the default one. Never touches: processes; the program beside a container installs
//! what is made here.
//!
//! A program knows two answers, so a profile becomes one program for its default answer and one for each other answer;
//! the kernel asks all of them and the strictest counts. The kernel takes a filter only from a process that gives up
//! gaining privileges by programs (`no_new_privs`), so set-user-ID programs gain none in a filtered container.

mod default;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use parking_lot::Mutex;
use seccompiler::{BpfProgram, TargetArch, compile_from_json, sock_filter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A filter as it is handed to the program beside a container: one tuple for each instruction.
pub(super) type Program = Vec<(u16, u8, u8, u32)>;

const SYS_ADMIN: &str = "CAP_SYS_ADMIN";
const EPERM: u32 = 1;

/// A profile in OCI's form, as files below the kubelet's `seccomp` folder have it. Docker's extensions are known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Vec<Argument>,
    includes: Condition,
    excludes: Condition,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Argument {
    index: u8,
    value: u64,
    value_two: u64,
    op: String,
}

/// Where Docker's form applies a rule, or does not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Allow,
    Log,
    Trace(u32),
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
}

impl Answer {
    fn of(action: &str, errno: Option<u32>) -> Result<Self, String> {
        Ok(match action {
            "SCMP_ACT_ALLOW" => Self::Allow,
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_TRACE" => Self::Trace(errno.unwrap_or(EPERM)),
            "SCMP_ACT_ERRNO" => Self::Errno(errno.unwrap_or(EPERM)),
            "SCMP_ACT_TRAP" => Self::Trap,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            _ => return Err(format!("the seccomp profile has an action that is not known here: {action:?}")),
        })
    }

    fn json(self) -> Value {
        match self {
            Self::Allow => json!("allow"),
            Self::Log => json!("log"),
            Self::Trace(number) => json!({"trace": number}),
            Self::Errno(number) => json!({"errno": number}),
            Self::Trap => json!("trap"),
            Self::KillThread => json!("kill_thread"),
            Self::KillProcess => json!("kill_process"),
        }
    }
}

/// The profile of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Profile, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("the seccomp profile cannot be read: {error}"))
}

/// The programs of the default profile for a container with these capabilities (`CAP_…`).
pub(super) fn runtime_default(capabilities: &BTreeSet<String>) -> Result<Vec<Program>, String> {
    compile(&default::profile(), capabilities)
}

/// The programs of a profile.
pub(super) fn compile(profile: &Profile, capabilities: &BTreeSet<String>) -> Result<Vec<Program>, String> {
    let otherwise = Answer::of(&profile.default_action, profile.default_errno_ret)?;
    let mut rules: BTreeMap<Answer, Vec<Value>> = BTreeMap::new();
    let mut named = Vec::new();
    for rule in profile.syscalls.iter().filter(|rule| applies(rule, capabilities)) {
        let answer = Answer::of(&rule.action, rule.errno_ret)?;
        if answer == otherwise {
            continue;
        }
        // Names of other machines and of newer kernels mean nothing here, as libseccomp has it.
        for name in rule.names.iter().filter(|name| known(name)) {
            let mut entry = json!({"syscall": name});
            if !rule.args.is_empty() {
                entry["args"] = rule.args.iter().map(argument).collect::<Result<_, _>>()?;
            }
            rules.entry(answer).or_default().push(entry.clone());
            named.push(entry);
        }
    }
    let mut programs = Vec::new();
    for (answer, entries) in rules.into_iter().filter(|(answer, _)| *answer != Answer::Allow) {
        programs.push(program(Answer::Allow, answer, &entries)?);
    }
    if otherwise != Answer::Allow {
        if named.is_empty() {
            return Err("the seccomp profile allows nothing".to_owned());
        }
        programs.push(program(otherwise, Answer::Allow, &named)?);
    }
    Ok(programs)
}

fn applies(rule: &Rule, capabilities: &BTreeSet<String>) -> bool {
    let here = |arches: &[String]| arches.iter().any(|name| name == docker_arch());
    let has = |caps: &[String]| caps.iter().any(|cap| capabilities.contains(cap));
    let included = (rule.includes.caps.is_empty()
        || rule.includes.caps.iter().all(|cap| capabilities.contains(cap)))
        && (rule.includes.arches.is_empty() || here(&rule.includes.arches));
    included && !has(&rule.excludes.caps) && !here(&rule.excludes.arches)
}

fn argument(argument: &Argument) -> Result<Value, String> {
    let (op, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (json!("eq"), argument.value),
        "SCMP_CMP_NE" => (json!("ne"), argument.value),
        "SCMP_CMP_LT" => (json!("lt"), argument.value),
        "SCMP_CMP_LE" => (json!("le"), argument.value),
        "SCMP_CMP_GT" => (json!("gt"), argument.value),
        "SCMP_CMP_GE" => (json!("ge"), argument.value),
        "SCMP_CMP_MASKED_EQ" => (json!({"masked_eq": argument.value}), argument.value_two),
        op => return Err(format!("the seccomp profile compares in a way that is not known here: {op:?}")),
    };
    Ok(json!({"index": argument.index, "type": "qword", "op": op, "val": value}))
}

fn program(otherwise: Answer, answer: Answer, entries: &[Value]) -> Result<Program, String> {
    // Rules for a call without conditions make others for it void, and the compiler wants them alone.
    let plain: HashSet<String> = entries
        .iter()
        .filter(|entry| entry.get("args").is_none())
        .map(|entry| entry["syscall"].to_string())
        .collect();
    let mut seen = HashSet::new();
    let filter: Vec<&Value> = entries
        .iter()
        .filter(|entry| {
            let name = entry["syscall"].to_string();
            if plain.contains(&name) { entry.get("args").is_none() && seen.insert(name) } else { true }
        })
        .collect();
    let text =
        json!({"it": {"mismatch_action": otherwise.json(), "match_action": answer.json(), "filter": filter}});
    let mut programs = compile_from_json(text.to_string().as_bytes(), arch()?)
        .map_err(|error| format!("the seccomp profile cannot be compiled: {error}"))?;
    let program = programs.remove("it").unwrap_or_default();
    Ok(program.into_iter().map(|step| (step.code, step.jt, step.jf, step.k)).collect())
}

/// What the kernel takes.
pub(super) fn decode(programs: &[Program]) -> Vec<BpfProgram> {
    programs
        .iter()
        .map(|program| program.iter().map(|&(code, jt, jf, k)| sock_filter { code, jt, jf, k }).collect())
        .collect()
}

fn arch() -> Result<TargetArch, String> {
    TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| format!("system calls cannot be filtered on {}", std::env::consts::ARCH))
}

fn docker_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the compiler has a number for this call here. Only names that it has are remembered: they are finite.
fn known(name: &str) -> bool {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if KNOWN.lock().contains(name) {
        return true;
    }
    let text =
        json!({"it": {"mismatch_action": "allow", "match_action": "log", "filter": [{"syscall": name}]}});
    let known = arch().is_ok_and(|arch| compile_from_json(text.to_string().as_bytes(), arch).is_ok());
    if known {
        KNOWN.lock().insert(name.to_owned());
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_default_profile_compiles_and_grows_with_capabilities() {
        let plain = runtime_default(&caps(&[])).unwrap();
        let admin = runtime_default(&caps(&[SYS_ADMIN])).unwrap();
        // Without the capability, `clone3` has an answer of its own.
        assert_eq!((plain.len(), admin.len()), (2, 1));
        assert!(admin[0].len() > plain[1].len(), "mount and its like are allowed");
        assert!(plain[1].len() > 300, "{}", plain[1].len());
    }

    #[test]
    fn every_name_of_the_default_profile_is_known_on_some_machine() {
        let unknown: Vec<String> = default::profile()
            .syscalls
            .into_iter()
            .flat_map(|rule| rule.names)
            .filter(|name| !known(name))
            .collect();
        // Calls of the other machines that Pintle runs on.
        let elsewhere = ["riscv_flush_icache", "riscv_hwprobe"];
        if std::env::consts::ARCH == "x86_64" {
            assert_eq!(
                unknown.iter().filter(|name| !elsewhere.contains(&name.as_str())).count(),
                0,
                "{unknown:?}"
            );
        }
    }

    #[test]
    fn a_profile_of_a_file_is_read_and_what_it_does_not_know_is_said() {
        let compile_text =
            |text: &str| parse(text.as_bytes()).and_then(|profile| compile(&profile, &caps(&[])));
        let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir","not_a_call"],"action":"SCMP_ACT_ERRNO"},
                        {"names":["chmod"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        assert_eq!(compile_text(deny).unwrap().len(), 2, "one for each answer");
        let unconfined = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert!(compile_text(unconfined).unwrap().is_empty());
        for (text, want) in [
            ("{", "cannot be read"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "action that is not known"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#, "allows nothing"),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{"index":0,"value":1,"op":"SCMP_CMP_XX"}]}]}"#,
                "compares in a way",
            ),
        ] {
            let error = compile_text(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
