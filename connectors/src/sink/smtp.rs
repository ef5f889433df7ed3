//! Mails by SMTP (RFC 5321), one connection a mail: they are few.
//!
//! ```toml
//! mail = { smtp = "smtp://HOST:587?tls=required", from = "jobs@shop.example", to = ["team@shop.example"], user = "env:USER", password = "env:PASSWORD" }
//! ```
//!
//! The address's scheme says how it is encrypted: `smtps://` from the first byte, `smtp://` with `?tls=required` or `?tls=opportunistic` after
//! STARTTLS, without either not at all. Certificates are judged by the machine's own authorities (or those of `SSL_CERT_FILE`).

use dataflow_core::{Clock, Error, Letter, Mailer, Result};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{Message, SmtpTransport, Transport};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// How long a server may take over one step of a mail.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What can be set.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// The server: `smtp://HOST[:PORT][?tls=required|opportunistic]` or `smtps://HOST[:PORT]`.
    pub smtp: String,
    /// Who sends: `jobs@shop.example` or `Name <jobs@shop.example>`.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
    /// With `password`: who logs in to the server, over an encrypted connection.
    pub user: Option<String>,
    /// See `user`.
    pub password: Option<String>,
}

/// A server and the addresses.
pub struct SmtpMailer {
    /// Without what a password may stand in.
    shown: String,
    transport: SmtpTransport,
    envelope: MessageBuilder,
    clock: Arc<dyn Clock>,
}

impl SmtpMailer {
    /// A mailer of these settings, which are those of `place`. Nothing is connected to.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(settings: &SmtpSettings, place: &str, clock: Arc<dyn Clock>) -> Result<SmtpMailer> {
        let wrong = |what: String, hint: &str| Error::user(format!("reading 'mail' of {place}: {what}")).hint(hint);
        if settings.smtp.contains('@') {
            let what = "the server's address holds a user".to_owned();
            return Err(wrong(what, "name them apart: user = \"env:USER\", password = \"env:PASSWORD\""));
        }
        let mut transport = SmtpTransport::from_url(&settings.smtp).map_err(|cause| {
            let hint = "it must be smtp://HOST:PORT, with ?tls=required where the server has STARTTLS, or smtps://HOST";
            wrong(format!("'{}' is no server's address", settings.smtp), hint).because(cause)
        })?;
        match (&settings.user, &settings.password) {
            (Some(_), Some(_)) if !is_private(&settings.smtp) => {
                let what = format!("it would send the password to '{}' for all to read", settings.smtp);
                return Err(wrong(what, "use smtps://, or smtp:// with ?tls=required"));
            }
            (Some(user), Some(password)) => {
                transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
            }
            (None, None) => {}
            _ => return Err(wrong("it has one of 'user' and 'password'".to_owned(), "set both, or none")),
        }
        let address = |text: &str| {
            let hint = "it must be like team@shop.example, or Team <team@shop.example>";
            text.parse::<Mailbox>().map_err(|cause| wrong(format!("'{text}' is no mail address"), hint).because(cause))
        };
        if settings.to.is_empty() {
            return Err(wrong("'to' is empty".to_owned(), "list who gets the mails, or leave 'mail' out"));
        }
        let mut envelope = Message::builder().from(address(&settings.from)?);
        for to in &settings.to {
            envelope = envelope.to(address(to)?);
        }
        let transport = transport.timeout(Some(TIMEOUT)).build();
        Ok(SmtpMailer { shown: settings.smtp.clone(), transport, envelope, clock })
    }
}

/// Whether nobody on the way reads what goes there: it is encrypted, or does not leave this machine.
fn is_private(server: &str) -> bool {
    let host = server.strip_prefix("smtp://").and_then(|rest| rest.split([':', '/', '?']).next());
    let is_near = host.is_some_and(|host| ["localhost", "127.0.0.1"].contains(&host));
    is_near || server.starts_with("smtps://") || server.ends_with("?tls=required")
}

impl Mailer for SmtpMailer {
    fn send(&self, letter: &Letter) -> Result<()> {
        let now = UNIX_EPOCH + Duration::from_micros(self.clock.wall().0.max(0).cast_unsigned());
        let mail = self.envelope.clone().date(now).message_id(Some(format!("<{}@dataflow>", letter.id)));
        let mail = mail.subject(letter.subject.clone()).header(ContentType::TEXT_PLAIN).body(letter.text.clone());
        let mail = mail.map_err(|cause| Error::us(format!("write mail '{}'", letter.id)).because(cause))?;
        self.transport.send(&mail).map(drop).map_err(|cause| {
            let (is_refused, what) = (cause.is_permanent(), format!("send mail '{}' by '{}'", letter.id, self.shown));
            let error = Error::outside(what).because(cause);
            if is_refused { error } else { error.retry() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::Micros;

    struct Still;

    impl Clock for Still {
        fn wall(&self) -> Micros {
            Micros(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn mailer(smtp: &str, from: &str, to: &[&str], user: Option<&str>, password: Option<&str>) -> Result<SmtpMailer> {
        let settings = SmtpSettings {
            smtp: smtp.to_owned(),
            from: from.to_owned(),
            to: to.iter().map(|to| (*to).to_owned()).collect(),
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
        };
        SmtpMailer::new(&settings, "sink 's' of profile 'p'", Arc::new(Still))
    }

    #[test]
    fn what_is_no_address_is_named_and_no_password_is_shown() {
        let (server, from, to) = ("smtp://h:25", "a@b.example", &["T <t@b.example>"][..]);
        for (built, said) in [
            (mailer("mail.example", from, to, None, None), "'mail.example' is no server's address"),
            (mailer("smtp://u:hush@h", from, to, None, None), "holds a user"),
            (mailer(server, "a", to, None, None), "'a' is no mail address"),
            (mailer(server, from, &["t@b.example", "@"], None, None), "'@' is no mail address"),
            (mailer(server, from, &[], None, None), "'to' is empty"),
            (mailer(server, from, to, None, Some("hush")), "one of 'user' and 'password'"),
        ] {
            let error = built.err().expect("it is refused").to_string();
            assert!(error.contains(said) && error.contains("sink 's'") && !error.contains("hush"), "{error}");
        }
        for (address, takes_password) in [
            ("smtp://h", false),
            ("smtp://h:587?tls=opportunistic", false),
            ("smtp://h:587?tls=required", true),
            ("smtps://h:465", true),
            ("smtp://localhost:25", true),
            ("smtp://localhost.example:25", false),
        ] {
            assert!(mailer(address, from, to, None, None).is_ok(), "{address}");
            assert_eq!(mailer(address, from, to, Some("u"), Some("hush")).is_ok(), takes_password, "{address}");
        }
    }

    #[test]
    fn a_server_that_is_away_is_tried_again() {
        let mailer = mailer("smtp://127.0.0.1:1", "a@b.example", &["t@b.example"], None, None).unwrap();
        let letter = Letter { id: "job.1.day".into(), subject: "a day".into(), text: "is over\n".into() };
        let error = mailer.send(&letter).unwrap_err();
        assert!(
            error.transient && error.to_string().starts_with("send mail 'job.1.day' by 'smtp://127.0.0.1:1'"),
            "{error}"
        );
    }
}
