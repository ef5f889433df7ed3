//! The catalog behind the Iceberg REST protocol. The server says in `/v1/config` which prefix its paths have and how levels of a namespace
//! are joined; it puts the metadata file in place itself.

use super::sqlite::gone;
use super::{Catalog, CommitError, Loaded, TableName};
use crate::settings::Secret;
use dataflow_core::{Error, Result};
use iceberg::spec::TableMetadata;
use iceberg::{TableCreation, TableRequirement, TableUpdate};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{RootCerts, TlsConfig};

/// How long a request may take. A commit that takes longer is of unknown outcome.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// The largest answer that is read: a table's metadata with its snapshots.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How levels of a namespace are joined where a server does not say: the protocol's unit separator.
const SEPARATOR: &str = "%1F";

/// A client of a REST catalog.
pub(crate) struct RestCatalog {
    agent: ureq::Agent,
    base: String,
    separator: String,
    authorization: Option<String>,
}

/// A server's answer.
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    /// Its own words, else the status alone.
    fn told(&self) -> String {
        let error = serde_json::from_str::<Value>(&self.body).ok().and_then(|body| body.get("error").cloned());
        match error {
            Some(error) => {
                let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
                format!("it answers {}, {}: {}", self.status, text("type"), text("message"))
            }
            None => format!("it answers {}", self.status),
        }
    }

    /// The error of a call that changes nothing, or whose repetition is harmless.
    fn refused(&self, what: &str) -> Error {
        let error = format!("{what}: {}", self.told());
        match self.status {
            401 | 403 => Error::user(error).hint("correct the catalog's token, or give it the right to do this"),
            429 | 500.. => Error::outside(error).retry(),
            _ => Error::outside(error),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LoadTable {
    metadata_location: String,
    metadata: TableMetadata,
}

impl LoadTable {
    fn parse(body: &str) -> serde_json::Result<Loaded> {
        let LoadTable { metadata_location: location, metadata } = serde_json::from_str(body)?;
        Ok(Loaded { location, metadata: Arc::new(metadata) })
    }
}

impl RestCatalog {
    /// Asks the server for its configuration. `uri` is without `/v1`.
    pub(crate) fn open(uri: &str, warehouse: Option<&str>, token: Option<&Secret>) -> Result<RestCatalog> {
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_MAX)).http_status_as_error(false);
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let authorization = token.map(|token| format!("Bearer {}", token.expose()));
        let base = format!("{}/v1", uri.trim_end_matches('/'));
        let mut catalog = RestCatalog {
            agent: config.tls_config(tls).build().into(),
            base,
            separator: SEPARATOR.to_owned(),
            authorization,
        };
        let query = warehouse.map(|name| format!("?warehouse={}", encoded(name))).unwrap_or_default();
        let what = format!("ask the catalog '{uri}' for its configuration");
        let answer = catalog.get(&format!("/config{query}")).map_err(|e| Error::outside(&*what).because(e).retry())?;
        if answer.status != 200 {
            return Err(answer.refused(&what));
        }
        let config: Value = serde_json::from_str(&answer.body).map_err(|e| Error::outside(&*what).because(e))?;
        // Overrides are the server's last word.
        let said = |key: &str| ["overrides", "defaults"].iter().find_map(|part| config[part][key].as_str());
        if let Some(separator) = said("namespace-separator") {
            separator.clone_into(&mut catalog.separator);
        }
        if let Some(prefix) = said("prefix").filter(|prefix| !prefix.is_empty()) {
            let _ = write!(catalog.base, "/{}", prefix.trim_matches('/'));
        }
        Ok(catalog)
    }

    fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.base)).header("Accept", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        read(request.call()?)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("Content-Type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        read(request.send(body.to_string())?)
    }

    fn namespace(&self, namespace: &[String]) -> String {
        let levels: Vec<_> = namespace.iter().map(|level| encoded(level)).collect();
        format!("/namespaces/{}", levels.join(&self.separator))
    }

    fn table(&self, table: &TableName) -> String {
        format!("{}/tables/{}", self.namespace(&table.namespace), encoded(&table.name))
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
    Ok(Answer { status, body })
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => write!(out, "%{byte:02X}").expect("a String takes whatever is written to it"),
        }
        out
    })
}

impl Catalog for RestCatalog {
    fn create_namespace(&self, namespace: &[String]) -> Result<()> {
        // Servers may refuse a level whose parent is not there.
        for depth in 1..=namespace.len() {
            let what = format!("create the namespace '{}'", namespace[..depth].join("."));
            let body = json!({"namespace": namespace[..depth], "properties": {}});
            let answer = self.post("/namespaces", &body).map_err(|e| Error::outside(&*what).because(e).retry())?;
            // 409: it is there.
            if !matches!(answer.status, 200 | 409) {
                return Err(answer.refused(&what));
            }
        }
        Ok(())
    }

    fn create_table(&self, table: &TableName, creation: TableCreation) -> Result<Option<Loaded>> {
        let what = format!("create the table '{table}'");
        let mut properties = creation.properties;
        properties.insert("format-version".to_owned(), (creation.format_version as u8).to_string());
        let body = json!({
            "name": creation.name, "schema": creation.schema, "partition-spec": creation.partition_spec,
            "write-order": creation.sort_order, "properties": properties,
        });
        let path = format!("{}/tables", self.namespace(&table.namespace));
        let answer = self.post(&path, &body).map_err(|e| Error::outside(&*what).because(e).retry())?;
        match answer.status {
            200 => LoadTable::parse(&answer.body).map(Some).map_err(|e| Error::outside(what).because(e)),
            409 => Ok(None),
            _ => Err(answer.refused(&what)),
        }
    }

    fn load(&self, table: &TableName) -> Result<Option<Loaded>> {
        let what = format!("load the table '{table}'");
        let answer = self.get(&self.table(table)).map_err(|e| Error::outside(&*what).because(e).retry())?;
        match answer.status {
            200 => LoadTable::parse(&answer.body).map(Some).map_err(|e| Error::outside(what).because(e)),
            404 => Ok(None),
            _ => Err(answer.refused(&what)),
        }
    }

    fn commit(
        &self,
        table: &TableName,
        requirements: &[TableRequirement],
        updates: Vec<TableUpdate>,
    ) -> Result<Loaded, CommitError> {
        let body = json!({"requirements": requirements, "updates": updates});
        let answer = self.post(&self.table(table), &body).map_err(|e| CommitError::Unknown(e.to_string()))?;
        match answer.status {
            200 => LoadTable::parse(&answer.body).map_err(|e| CommitError::Unknown(format!("unreadable answer: {e}"))),
            404 => Err(CommitError::Refused(gone(table))),
            409 | 429 => Err(CommitError::Conflict(answer.told())),
            500.. => Err(CommitError::Unknown(answer.told())),
            _ => Err(CommitError::Refused(answer.refused(&format!("commit to the table '{table}'")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("a b/c%é_1"), "a%20b%2Fc%25%C3%A9_1");
    }

    #[test]
    fn a_server_is_quoted() {
        let body = r#"{"error": {"message": "stale", "type": "CommitFailedException", "code": 409}}"#.to_owned();
        assert_eq!(Answer { status: 409, body }.told(), "it answers 409, CommitFailedException: stale");
        assert_eq!(Answer { status: 500, body: "<html>".to_owned() }.told(), "it answers 500");
    }
}
