//! Signals by the names that images and pods give them.

use rustix::process::Signal;

/// The signal of a name (`SIGTERM`, `TERM`) or number; TERM for an empty one. Real-time signals have no safe form here.
pub(super) fn parse(name: &str) -> Option<Signal> {
    let name = name.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Ok(number) = name.parse::<i32>() {
        return Signal::from_named_raw(number);
    }
    Some(match name {
        "" | "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ABRT" | "IOT" => Signal::ABORT,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "ALRM" => Signal::ALARM,
        "CONT" => Signal::CONT,
        "STOP" => Signal::STOP,
        "TSTP" => Signal::TSTP,
        "WINCH" => Signal::WINCH,
        "PWR" => Signal::POWER,
        "TRAP" => Signal::TRAP,
        "PIPE" => Signal::PIPE,
        "CHLD" => Signal::CHILD,
        "URG" => Signal::URG,
        "IO" | "POLL" => Signal::IO,
        "SYS" => Signal::SYS,
        "ILL" => Signal::ILL,
        "BUS" => Signal::BUS,
        "FPE" => Signal::FPE,
        "SEGV" => Signal::SEGV,
        "TTIN" => Signal::TTIN,
        "TTOU" => Signal::TTOU,
        "XCPU" => Signal::XCPU,
        "XFSZ" => Signal::XFSZ,
        "VTALRM" => Signal::VTALARM,
        "PROF" => Signal::PROF,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_signals_and_others_do_not() {
        for (name, want) in [
            ("", Some(Signal::TERM)),
            ("SIGQUIT", Some(Signal::QUIT)),
            ("usr1", Some(Signal::USR1)),
            ("9", Some(Signal::KILL)),
            ("SIGRTMIN+3", None),
            ("FOO", None),
        ] {
            assert_eq!(parse(name), want, "{name}");
        }
    }
}
