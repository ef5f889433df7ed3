//! Asks a schema registry (Confluent's API) for a schema by its id.

use base64::Engine;
use dataflow_core::{Error, Result};
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use ureq::tls::{RootCerts, TlsConfig};

/// Bytes of a schema's text beyond which its id is bound as unknown: a hundred times the largest sensible schema.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Where the registry is.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    /// The base address, with its path, such as `http://localhost:8081/apis/ccompat/v7`.
    pub url: String,
    /// For basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// For basic authentication; a secret that the caller has resolved.
    #[serde(default)]
    pub password: Option<String>,
    /// How long a 404 is asked again before the id is bound as unknown: a registry's replica may lag behind a producer.
    #[serde(default = "grace_ms")]
    pub grace_ms: u64,
    /// How long one question may take, its answer's last byte included.
    #[serde(default = "request_timeout_ms")]
    pub request_timeout_ms: u64,
}

fn grace_ms() -> u64 {
    5000
}

fn request_timeout_ms() -> u64 {
    10_000
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "(set)");
        let mut debug = f.debug_struct("RegistrySettings");
        debug.field("url", &self.url).field("username", &self.username).field("password", &password);
        debug.field("grace_ms", &self.grace_ms).field("request_timeout_ms", &self.request_timeout_ms).finish()
    }
}

/// What the registry said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The schema's text.
    Text(String),
    /// It knows no such id.
    NotFound,
    /// The text is larger than [`SCHEMA_BYTES_MAX`].
    TooLarge,
}

/// Whom an id is asked of.
pub trait Ask: Send {
    /// Asks for a schema. May block for some seconds.
    ///
    /// # Errors
    /// When there is no answer that can be read; the same call may succeed later.
    fn get(&self, id: u32) -> Result<Answer>;
}

/// A client of one registry.
pub struct RegistryClient {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    schema: String,
}

impl RegistryClient {
    /// A client. Nothing is connected yet.
    pub fn new(settings: &RegistrySettings) -> RegistryClient {
        let timeout = Duration::from_millis(settings.request_timeout_ms.max(1));
        let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let authorization = settings.username.as_ref().map(|user| {
            let pair = format!("{user}:{}", settings.password.as_deref().unwrap_or_default());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        });
        let base = settings.url.trim_end_matches('/').to_owned();
        RegistryClient { agent: config.tls_config(tls).build().into(), base, authorization }
    }
}

impl Ask for RegistryClient {
    /// Blocks for at most the settings' time.
    ///
    /// # Errors
    /// When the registry does not answer, or with anything but a schema or a 404; the same call may succeed later. A user's error when it
    /// does not take user and password.
    fn get(&self, id: u32) -> Result<Answer> {
        let url = format!("{}/schemas/ids/{id}", self.base);
        let what = || format!("asking the schema registry for '{url}'");
        let mut request =
            self.agent.get(&url).header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.call().map_err(|e| Error::outside(what()).because(e).retry())?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Answer::NotFound),
            status @ (401 | 403) => {
                let hint = "correct 'registry.username' and 'registry.password' of the source in the job's settings";
                return Err(Error::user(format!("{}: it answers {status}", what())).hint(hint));
            }
            status => return Err(Error::outside(format!("{}: it answers {status}", what())).retry()),
        }
        // The text comes as a JSON string, whose escapes may double it, within a little more JSON.
        let limit = 2 * SCHEMA_BYTES_MAX as u64 + 4096;
        let body = match response.body_mut().with_config().limit(limit).read_to_string() {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Ok(Answer::TooLarge),
            Err(error) => return Err(Error::outside(what()).because(error).retry()),
        };
        let body: Body = serde_json::from_str(&body).map_err(|e| Error::outside(what()).because(e).retry())?;
        Ok(if body.schema.len() > SCHEMA_BYTES_MAX { Answer::TooLarge } else { Answer::Text(body.schema) })
    }
}
