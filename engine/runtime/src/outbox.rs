//! Mails on their way: in a folder of the data folder until a server has them, so that a server that is away holds nothing up and loses none.
//!
//! ```text
//!  letter ─► outbox/ID.json, durable ─► the server ─► outbox/sent/ID
//! ```
//!
//! A replay posts its letters again; one that `sent` names is not sent twice. Only an end of the process between the server's answer and that
//! note sends a mail twice, under the same Message-ID: no protocol of mail rules that out. A mail that the server refuses for good waits
//! for the next start: its addresses are then those of the settings.

use crate::backoff::Backoff;
use dataflow_core::{Error, Letter, Mailer, Result, Storage, replace_file};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The folder of letters in the data folder, by sink.
const OUTBOX: &str = "outbox";
/// Notes of mails that are sent, of each sink: more than a replay can post again.
const SENT_MAX: usize = 1_000;

/// The mails of one sink of files.
pub(crate) struct Outbox {
    storage: Arc<dyn Storage>,
    mailer: Arc<dyn Mailer>,
    letters: String,
    sent: String,
    /// Refused by the server since the process began.
    refused: BTreeSet<String>,
    backoff: Backoff,
}

/// What became of the letters that wait.
pub(crate) enum Delivered {
    /// All are sent, or refused for good.
    All,
    /// One could not be sent: try again after this long.
    Later(Duration, Error),
}

impl Outbox {
    /// The outbox of the sink `name`, which may have letters of an earlier process.
    pub(crate) fn new(storage: Arc<dyn Storage>, name: &str, mailer: Arc<dyn Mailer>) -> Outbox {
        let letters = format!("{OUTBOX}/{name}");
        let sent = format!("{letters}/sent");
        Outbox { storage, mailer, letters, sent, refused: BTreeSet::new(), backoff: Backoff::default() }
    }

    /// Keeps a letter until it is sent, unless it was.
    ///
    /// # Errors
    /// When the data folder can not be read or written.
    pub(crate) fn post(&self, letter: &Letter) -> Result<()> {
        if self.storage.length(&format!("{}/{}", self.sent, letter.id))?.is_some() {
            return Ok(());
        }
        self.storage.create_dir(&self.sent)?;
        let bytes = serde_json::to_vec(letter).map_err(|cause| Error::us("write a letter").because(cause))?;
        replace_file(&*self.storage, &self.letters, &format!("{}.json", letter.id), &bytes)
    }

    /// Sends what waits, in the order of the letters' ids.
    ///
    /// # Errors
    /// When the data folder can not be read or written.
    pub(crate) fn deliver(&mut self) -> Result<Delivered> {
        for file in self.storage.list(&self.letters)? {
            let Some(id) = file.strip_suffix(".json").filter(|id| !self.refused.contains(*id)) else { continue };
            let path = format!("{}/{file}", self.letters);
            let letter: Letter = serde_json::from_slice(&self.storage.read(&path)?).map_err(|cause| {
                Error::outside(format!("read the letter '{path}' of the data folder")).because(cause).hint("remove it")
            })?;
            match self.mailer.send(&letter) {
                Ok(()) => {
                    replace_file(&*self.storage, &self.sent, id, b"")?;
                    self.storage.remove(&path)?;
                    self.backoff.reset();
                    tracing::info!(letter.id, letter.subject, "mail sent");
                }
                Err(error) if error.transient => return Ok(Delivered::Later(self.backoff.pause(), error)),
                Err(error) => {
                    tracing::error!(
                        "{error}; it stays in '{path}' and is tried again at the next start, with the addresses of its settings"
                    );
                    self.refused.insert(id.to_owned());
                }
            }
        }
        self.forget()?;
        Ok(Delivered::All)
    }

    /// Removes the first notes of what was sent: of a file they are the oldest, as its letters are called by their days.
    fn forget(&self) -> Result<()> {
        let sent = self.storage.list(&self.sent)?;
        let old = sent.len().saturating_sub(SENT_MAX);
        sent[..old].iter().try_for_each(|id| self.storage.remove(&format!("{}/{id}", self.sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_state::storage::MemoryStorage;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Answers as it is told, then well; keeps what it took.
    #[derive(Default)]
    struct Server {
        answers: Mutex<VecDeque<Result<()>>>,
        took: Mutex<Vec<Letter>>,
    }

    impl Mailer for Server {
        fn send(&self, letter: &Letter) -> Result<()> {
            self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()))?;
            self.took.lock().unwrap().push(letter.clone());
            Ok(())
        }
    }

    fn letter(day: u32) -> Letter {
        Letter { id: format!("job.1.day_2026-03-{day:02}"), subject: format!("day {day}"), text: "is over\n".into() }
    }

    fn took(server: &Server) -> Vec<Letter> {
        server.took.lock().unwrap().clone()
    }

    #[test]
    fn a_letter_outlives_the_process_and_is_sent_once_whatever_is_posted_again() {
        let (storage, server) = (Arc::new(MemoryStorage::default()), Arc::new(Server::default()));
        let open = || Outbox::new(storage.clone(), "files", server.clone());
        server.answers.lock().unwrap().push_back(Err(Error::outside("away").retry()));
        let mut first = open();
        first.post(&letter(2)).unwrap();
        first.post(&letter(1)).unwrap();
        assert!(matches!(first.deliver().unwrap(), Delivered::Later(..)));
        assert_eq!(took(&server), []);
        let mut second = open();
        assert!(matches!(second.deliver().unwrap(), Delivered::All));
        for outbox in [&mut second, &mut open()] {
            outbox.post(&letter(1)).unwrap();
            outbox.post(&letter(2)).unwrap();
            assert!(matches!(outbox.deliver().unwrap(), Delivered::All));
        }
        assert_eq!(took(&server), [letter(1), letter(2)]);
    }

    #[test]
    fn a_letter_that_is_refused_holds_no_other_up_and_waits_for_the_next_start() {
        let (storage, server) = (Arc::new(MemoryStorage::default()), Arc::new(Server::default()));
        let open = || Outbox::new(storage.clone(), "files", server.clone());
        server.answers.lock().unwrap().push_back(Err(Error::outside("no such address")));
        let mut first = open();
        first.post(&letter(1)).unwrap();
        first.post(&letter(2)).unwrap();
        for _ in 0..2 {
            assert!(matches!(first.deliver().unwrap(), Delivered::All));
            assert_eq!(took(&server), [letter(2)]);
        }
        assert!(matches!(open().deliver().unwrap(), Delivered::All));
        assert_eq!(took(&server), [letter(2), letter(1)]);
    }
}
