//! The one library error: what was attempted, on what, why it failed, whose fault it is, and what to do.
//!
//! Nothing matches on the text. [`Fault`] and [`Error::transient`] are what callers decide by.

use std::fmt;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, which decides the exit code and who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command line, a settings file or a job file: exit code 2.
    User,
    /// A broker, a registry, a disk, a file another program wrote: exit code 3.
    Outside,
    /// Log, checkpoint and sinks contradict each other (invariant 8): exit code 4.
    Doubt,
    /// Another generation of the job has taken over: exit code 5.
    Fenced,
    /// The engine itself: exit code 70.
    Us,
}

impl Fault {
    /// The process exit code that stands for this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::User => 2,
            Fault::Outside => 3,
            Fault::Doubt => 4,
            Fault::Fenced => 5,
            Fault::Us => 70,
        }
    }
}

/// An error with its object, cause and next step.
#[derive(Debug)]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether the same call may succeed later.
    pub transient: bool,
    /// Whether a new start of the job deals with it: what changed outside is looked at then.
    pub restart: bool,
    /// What was attempted and on what object (in single quotes), lower case, no full stop.
    pub what: String,
    /// What the user can do about it, if anything is known.
    pub hint: Option<String>,
    /// The cause, when another error is behind this one.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given fault, not worth repeating.
    pub fn new(fault: Fault, what: impl Into<String>) -> Error {
        Error { fault, transient: false, restart: false, what: what.into(), hint: None, source: None }
    }

    /// The settings, the command line or the job file are wrong.
    pub fn user(what: impl Into<String>) -> Error {
        Error::new(Fault::User, what)
    }

    /// Something outside the process failed.
    pub fn outside(what: impl Into<String>) -> Error {
        Error::new(Fault::Outside, what)
    }

    /// Log, checkpoint and sinks do not belong together.
    pub fn doubt(what: impl Into<String>) -> Error {
        Error::new(Fault::Doubt, what)
    }

    /// A newer generation runs.
    pub fn fenced(what: impl Into<String>) -> Error {
        Error::new(Fault::Fenced, what)
    }

    /// The engine broke a promise to itself.
    pub fn us(what: impl Into<String>) -> Error {
        Error::new(Fault::Us, what)
    }

    /// The same call may succeed later.
    pub fn retry(mut self) -> Error {
        self.transient = true;
        self
    }

    /// A new start of the job deals with it.
    pub fn restart(mut self) -> Error {
        self.restart = true;
        self
    }

    /// What to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}
