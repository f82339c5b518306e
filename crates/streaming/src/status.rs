//! How a command ended, as its client is told.

use serde_json::json;

/// The end of a command, or of being attached to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It ran and returned another code than 0.
    Exit {
        code: i32,
        /// What was run, as the message names it.
        message: String,
    },
    /// It could not be run, or its end is not known.
    Failure(String),
}

impl Outcome {
    /// What a command's exit code means.
    pub fn of_exit(code: i32) -> Self {
        match code {
            0 => Self::Success,
            _ => Self::Exit { code, message: format!("exit status {code}") },
        }
    }

    /// The words that clients of the old protocols get on the error stream, and all people.
    fn message(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exit { message, .. } => {
                Some(format!("command terminated with non-zero exit code: {message}"))
            }
            Self::Failure(message) => Some(format!("Internal error occurred: {message}")),
        }
    }

    /// What goes onto the error stream: a `Status` since protocol 4, before that the words of a failure.
    pub(crate) fn encode(&self, version: u8) -> Option<String> {
        if version < 4 {
            return self.message();
        }
        let status = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        };
        Some(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_status_since_version_4_and_words_before() {
        let exit = Outcome::of_exit(7);
        let status: serde_json::Value = serde_json::from_str(&exit.encode(4).unwrap()).unwrap();
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!(exit.encode(3).unwrap(), "command terminated with non-zero exit code: exit status 7");

        let failure = Outcome::Failure("error executing command in container: no such file".to_owned());
        let status: serde_json::Value = serde_json::from_str(&failure.encode(5).unwrap()).unwrap();
        assert_eq!((&status["code"], &status["reason"]), (&json!(500), &json!("InternalError")));
        let message = "Internal error occurred: error executing command in container: no such file";
        assert_eq!(status["message"], message);

        assert_eq!(Outcome::of_exit(0).encode(4).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(Outcome::Success.encode(1), None);
    }
}
