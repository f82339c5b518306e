//! Security contexts of pods and containers.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::container;
use super::volumes::local_descending_path;
use crate::strategy::Context;
use crate::validation::fields::{Fields, as_go_struct, invalid_each, supported};
use crate::validation::text;

const SYSCTL_MAX: usize = 253;
/// A path may not be longer, in bytes.
const PROFILE_PATH_MAX: usize = 4095;
const CREDENTIAL_SPEC_KIB: usize = 64;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// The security context of a container.
pub fn container(errors: &mut ErrorList, context: &Value, pod: &container::Pod<'_>, path: &Path<'_>) {
    if context.truth("privileged") && !pod.allow_privileged {
        errors.push(Error::forbidden(&path.child("privileged"), "disallowed by cluster policy"));
    }
    unix_id(errors, context, "runAsUser", path);
    unix_id(errors, context, "runAsGroup", path);
    if let Some(mount) = context.maybe_text("procMount") {
        let path = path.child("procMount");
        supported(errors, mount, &path, &["Default", "Unmasked"]);
        if pod.host_users && mount == "Unmasked" {
            errors.push(Error::invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp_profile(errors, context, path);
    if context.maybe_truth("allowPrivilegeEscalation") == Some(false) {
        if context.truth("privileged") {
            errors.push(Error::invalid(
                path,
                shown(context),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        if context["capabilities"].list("add").iter().any(|added| added.as_str() == Some("CAP_SYS_ADMIN")) {
            errors.push(Error::invalid(
                path,
                shown(context),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    windows_options(errors, context, path);
    app_armor_profile(errors, context, path);
}

fn shown(context: &Value) -> impl apimachinery::field::Shown + use<> {
    as_go_struct(
        context,
        &[
            ("capabilities", "Capabilities", "null"),
            ("privileged", "Privileged", "null"),
            ("seLinuxOptions", "SELinuxOptions", "null"),
            ("windowsOptions", "WindowsOptions", "null"),
            ("runAsUser", "RunAsUser", "null"),
            ("runAsGroup", "RunAsGroup", "null"),
            ("runAsNonRoot", "RunAsNonRoot", "null"),
            ("readOnlyRootFilesystem", "ReadOnlyRootFilesystem", "null"),
            ("allowPrivilegeEscalation", "AllowPrivilegeEscalation", "null"),
            ("procMount", "ProcMount", "null"),
            ("seccompProfile", "SeccompProfile", "null"),
            ("appArmorProfile", "AppArmorProfile", "null"),
        ],
    )
}

/// The security context of a pod.
pub fn pod(errors: &mut ErrorList, context: &Value, spec: &Value, path: &Path<'_>) {
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        unix_id(errors, context, key, path);
    }
    let groups = path.child("supplementalGroups");
    for (index, group) in context.list("supplementalGroups").iter().enumerate() {
        let id = group.as_i64().unwrap_or_default();
        invalid_each(errors, &groups.index(index), id, text::unix_id(id));
    }
    if spec.truth("shareProcessNamespace") && spec.truth("hostPID") {
        errors.push(Error::invalid(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(errors, context.list("sysctls"), spec, &path.child("sysctls"));
    if let Some(policy) = context.maybe_text("fsGroupChangePolicy") {
        supported(errors, policy, &path.child("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    }
    seccomp_profile(errors, context, path);
    windows_options(errors, context, path);
    app_armor_profile(errors, context, path);
    if let Some(policy) = context.maybe_text("supplementalGroupsPolicy") {
        supported(errors, policy, &path.child("supplementalGroupsPolicy"), &["Merge", "Strict"]);
    }
    if let Some(policy) = context.maybe_text("seLinuxChangePolicy") {
        // The other policy comes with the feature gate SELinuxMount, which is off.
        supported(errors, policy, &path.child("seLinuxChangePolicy"), &["Recursive"]);
    }
}

fn unix_id(errors: &mut ErrorList, context: &Value, key: &str, path: &Path<'_>) {
    if let Some(id) = context.maybe_int(key) {
        invalid_each(errors, &path.child(key), id, text::unix_id(id));
    }
}

fn sysctls(errors: &mut ErrorList, sysctls: &[Value], spec: &Value, path: &Path<'_>) {
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_sysctl(name) {
            errors.push(Error::invalid(
                &path,
                name,
                format!(
                    r"must have at most {SYSCTL_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
                ),
            ));
        } else if sysctls[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path, name));
        }
        let dotted = name.replace('/', ".");
        if spec.truth("hostNetwork") && dotted.starts_with("net.") {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.truth("hostIPC") && is_ipc_sysctl(&dotted) {
            errors.push(Error::invalid(&path, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

fn is_ipc_sysctl(name: &str) -> bool {
    matches!(name, "kernel.sem" | "kernel.shm_rmid_forced")
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

fn seccomp_profile(errors: &mut ErrorList, context: &Value, path: &Path<'_>) {
    let Some(profile) = context.maybe("seccompProfile") else { return };
    let path = path.child("seccompProfile");
    match profile.text("type") {
        "" => {
            errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set"))
        }
        kind => supported(errors, kind, &path.child("type"), &PROFILE_TYPES),
    }
    let local_path = path.child("localhostProfile");
    match (profile.text("type"), profile.maybe_text("localhostProfile")) {
        ("Localhost", None) => {
            errors.push(Error::required(&local_path, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(local)) => local_descending_path(errors, local, &local_path),
        (_, Some(_)) => {
            let shown = as_go_struct(
                profile,
                &[("type", "Type", "\"\""), ("localhostProfile", "LocalhostProfile", "null")],
            );
            errors.push(Error::invalid(&local_path, shown, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

fn app_armor_profile(errors: &mut ErrorList, context: &Value, path: &Path<'_>) {
    let Some(profile) = context.maybe("appArmorProfile") else { return };
    let path = path.child("appArmorProfile");
    let local_path = path.child("localhostProfile");
    const REQUIRED: &str = "must be set when AppArmor type is Localhost";
    match (profile.text("type"), profile.maybe_text("localhostProfile")) {
        ("Localhost", None) => errors.push(Error::required(&local_path, REQUIRED)),
        ("Localhost", Some(local)) => {
            if local.trim() != local {
                errors.push(Error::invalid(&local_path, local, "must not be padded with whitespace"));
            } else if local.is_empty() {
                errors.push(Error::required(&local_path, REQUIRED));
            }
            if local.len() > PROFILE_PATH_MAX {
                errors.push(Error::too_long(&local_path, PROFILE_PATH_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            errors.push(Error::invalid(
                &local_path,
                local,
                "can only be set when AppArmor type is Localhost",
            ));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set"))
        }
        (other, _) => errors.push(Error::not_supported(&path.child("type"), other, &PROFILE_TYPES)),
    }
}

fn windows_options(errors: &mut ErrorList, context: &Value, path: &Path<'_>) {
    let Some(options) = context.maybe("windowsOptions") else { return };
    let path = path.child("windowsOptions");
    if let Some(name) = options.maybe_text("gmsaCredentialSpecName") {
        invalid_each(errors, &path.child("gmsaCredentialSpecName"), name, text::dns1123_subdomain(name));
    }
    if let Some(spec) = options.maybe_text("gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > CREDENTIAL_SPEC_KIB << 10 {
            errors.push(Error::invalid(
                &path,
                spec,
                format!("gmsaCredentialSpec size must be under {CREDENTIAL_SPEC_KIB} KiB"),
            ));
        }
    }
    if let Some(name) = options.maybe_text("runAsUserName") {
        let path = path.child("runAsUserName");
        for complaint in windows_user(name) {
            errors.push(Error::invalid(&path, name, complaint));
        }
    }
}

/// What is wrong with `[domain\]user`.
fn windows_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".into()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".into()];
    }
    if name.matches('\\').count() > 1 {
        return vec!["runAsUserName cannot contain more than one backslash".into()];
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    let mut complaints = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            complaints.push(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
        }
        if !is_net_bios_name(domain) && !is_windows_dns_name(domain) {
            complaints.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".into());
        }
    }
    if user.is_empty() {
        complaints.push("runAsUserName's User cannot be empty".into());
    } else if user.len() > USER_MAX {
        complaints.push(format!("runAsUserName's User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        complaints.push("runAsUserName's User cannot contain only periods or spaces".into());
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        complaints
            .push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".into());
    }
    complaints
}

fn is_net_bios_name(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length) && !domain.starts_with('.') && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_windows_dns_name(domain: &str) -> bool {
    domain.split('.').all(|label| {
        label.len() <= 63
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Host process containers come all or none, and need the host's network.
/// They are as powerful as privileged containers.
pub fn windows_host_process(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, path: &Path<'_>) {
    let of = |holder: &Value| holder["securityContext"]["windowsOptions"].maybe_truth("hostProcess");
    let pod = of(spec);
    let (mut all, mut host) = (0, 0);
    container::visit(spec, path, |container, path| {
        all += 1;
        let own = of(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            errors.push(Error::invalid(
                &path.child("securityContext").child("windowsOptions").child("hostProcess"),
                own,
                format!("pod hostProcess value must be identical if both are specified, was {pod}"),
            ));
        }
        if own.or(pod) == Some(true) {
            host += 1;
        }
    });
    if host == 0 {
        return;
    }
    if host != all {
        errors.push(Error::invalid(
            path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        ));
    }
    if !spec.truth("hostNetwork") {
        errors.push(Error::invalid(
            &path.child("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
    if !ctx.allow_privileged {
        errors.push(Error::forbidden(path, "hostProcess containers are disallowed by cluster policy"));
    }
}

/// What may not be set for the operating system that a pod names.
pub fn operating_system(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let Some(os) = spec.maybe("os") else { return };
    match os.text("name") {
        "" => errors.push(Error::required(&path.child("os").child("name"), "")),
        "linux" => not_for_linux(errors, spec, path),
        "windows" => not_for_windows(errors, spec, path),
        other => errors.push(Error::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn not_for_linux(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let mut check = |holder: &Value, path: &Path<'_>| {
        if holder["securityContext"].has("windowsOptions") {
            errors.push(Error::forbidden(
                &path.child("securityContext").child("windowsOptions"),
                "windows options cannot be set for a linux pod",
            ));
        }
    };
    check(spec, path);
    container::visit(spec, path, |container, path| check(container, path));
}

fn not_for_windows(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    const NOT: &str = "cannot be set for a windows pod";
    // In the order of upstream's checks; `true` marks fields of the security context, others stand in the spec.
    const POD: [(&str, bool); 14] = [
        ("appArmorProfile", true),
        ("seLinuxOptions", true),
        ("hostUsers", false),
        ("hostPID", false),
        ("hostIPC", false),
        ("seccompProfile", true),
        ("fsGroup", true),
        ("fsGroupChangePolicy", true),
        ("sysctls", true),
        ("shareProcessNamespace", false),
        ("runAsUser", true),
        ("runAsGroup", true),
        ("supplementalGroups", true),
        ("supplementalGroupsPolicy", true),
    ];
    const CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let context_path = path.child("securityContext");
    for (key, in_context) in POD.into_iter().chain([("seLinuxChangePolicy", true)]) {
        let (holder, path) =
            if in_context { (&spec["securityContext"], &context_path) } else { (spec, path) };
        let set = match holder.maybe(key) {
            Some(Value::Bool(flag)) => *flag || !matches!(key, "hostPID" | "hostIPC"),
            Some(Value::Array(items)) => !items.is_empty(),
            value => value.is_some(),
        };
        if set {
            errors.push(Error::forbidden(&path.child(key), NOT));
        }
    }
    container::visit(spec, path, |container, path| {
        let context = &container["securityContext"];
        for key in CONTAINER.into_iter().filter(|key| context.has(key)) {
            errors.push(Error::forbidden(&path.child("securityContext").child(key), NOT));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_users_have_a_form() {
        for good in ["user", "DOMAIN\\user", "a.b\\user"] {
            assert_eq!(windows_user(good), Vec::<String>::new(), "{good}");
        }
        for (bad, complaints) in [("", 1), ("a\\b\\c", 1), (".\\u", 1), ("d\\", 1), ("...", 1), ("a:b", 1)] {
            assert_eq!(windows_user(bad).len(), complaints, "{bad}");
        }
    }

    #[test]
    fn sysctls_have_a_form() {
        for (name, good) in
            [("net.ipv4.a_b", true), ("kernel/shm-x", true), ("", false), ("a..b", false), ("A", false)]
        {
            assert_eq!(is_sysctl(name), good, "{name}");
        }
    }
}
