//! A mail, and the trait of what sends one.

use crate::Result;
use serde::{Deserialize, Serialize};

/// A mail to send, but for its addresses. It is a function of what was bound, so a repeat says the same under the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What a mail is told by: becomes its Message-ID (RFC 5322, 3.6.4), by which a reader's mailbox shows a repeat once. Letters, digits, `.`,
    /// `-` and `_`.
    pub id: String,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub text: String,
}

/// Sends mails. Called from a task of its own and may block.
pub trait Mailer: Send + Sync {
    /// Hands a mail to a server, which has it after success.
    ///
    /// # Errors
    /// Transient when a later attempt may succeed; otherwise the server refuses the mail for good.
    fn send(&self, letter: &Letter) -> Result<()>;
}
