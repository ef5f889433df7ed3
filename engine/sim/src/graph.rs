//! The login job's graph as `jobs/login_anomalies.rs` has it, wired to the simulated outside.
//!
//! The job file itself is a program over the facade and cannot be linked here; what it composes can: the same source operator,
//! enrichment, keyed histories, detectors and rows.

use dataflow_connectors::decode::avro::AvroDecoder;
use dataflow_connectors::decode::json::JsonDecoder;
use dataflow_connectors::decode::registry::Schemas;
use dataflow_core::{Decode, Result, TopicId, Waker};
use dataflow_operators::anomaly::{
    BruteForce, Burst, ByAddress, ByUser, CredentialStuffing, ImpossibleTravel, LOGIN_EVENT_SCHEMA, LoginEvent,
    NewCountry, NewDevice, UnresolvedAddress, deliver,
};
use dataflow_operators::enrich::enrich;
use dataflow_operators::window::keyed_history::{Emit, keyed_findings, keyed_history};
use dataflow_runtime::job::JobScope;
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::operators::vec::Map;

/// The name of the one source.
pub(crate) const SOURCE: &str = "login-events";

/// The name of the geography in the plan.
pub(crate) const GEO: &str = "geo";

/// The output topics.
pub(crate) const TOPICS: [&str; 4] =
    ["login-events-enriched", "login-anomalies", "login-events-late", "login-events-dlq"];

/// Which sink takes a topic, and the topic's rank in it.
pub(crate) type Routes = BTreeMap<&'static str, (String, TopicId)>;

/// Builds the graph on one worker. With `schemas` it reads Avro, else JSON.
pub(crate) fn build(job: &mut JobScope<'_>, emit: Emit, routes: &Routes, schemas: Option<&Arc<Schemas>>) -> Result<()> {
    let decoder: Box<dyn Decode<LoginEvent>> = match schemas {
        Some(schemas) => Box::new(AvroDecoder::new(LOGIN_EVENT_SCHEMA, schemas.clone(), Waker::none())?),
        None => Box::new(JsonDecoder::<LoginEvent>::default()),
    };
    let (records, dead) = job.source::<LoginEvent>(SOURCE, decoder)?;
    let logins = enrich(job, GEO, records)?;
    let (accepted, late) = job.accept(logins);
    let of_a_user = (
        NewCountry::default(),
        UnresolvedAddress::default(),
        ImpossibleTravel::default(),
        BruteForce::default(),
        NewDevice::default(),
        Burst::default(),
    );
    let of_an_address = (CredentialStuffing::default(),);
    let (distinct, by_user) = keyed_history(job, "logins-by-user", ByUser(of_a_user), emit, accepted.clone())?;
    let by_address = keyed_findings(job, "logins-by-address", ByAddress(of_an_address), emit, accepted)?;
    let [(enriched_sink, enriched), (anomaly_sink, anomalies), (late_sink, lates), (dead_sink, letters)] =
        TOPICS.map(|topic| routes[topic].clone());
    job.write(&enriched_sink, distinct.map(move |login| deliver::enriched(enriched, &login)))?;
    for found in [by_user, by_address] {
        job.write(&anomaly_sink, found.map(move |said| deliver::anomaly(anomalies, &said, SOURCE)))?;
    }
    job.write(&late_sink, late.map(move |late| deliver::late(lates, &late, SOURCE)))?;
    job.write(&dead_sink, dead.map(move |letter| deliver::dead_letter(letters, &letter, SOURCE, false)))
}
