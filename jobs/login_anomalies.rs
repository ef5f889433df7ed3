//! Login anomalies: seven detectors over login events, said within a tick and exactly once.
//!
//! ```text
//!  login-events ─► enrich (where the address lies) ─► accept ─► by user:    six detectors ──┐
//!        │                                              │  └──► by address: stuffing ───────┴► login-anomalies
//!        │                                              │       by user: no duplicates ──────► login-events-enriched
//!        │                                              └ late ──────────────────────────────► login-events-late
//!        └ cannot be used ───────────────────────────────────────────────────────────────────► login-events-dlq
//! ```
//!
//! What each detector asks is in its own header (`operators/src/anomaly`); `emit` says when it is answered: `eager` with
//! the login, taken back if an earlier one arrives later, or `final` when the watermark has passed.

use dataflow::prelude::*;

const SOURCE: &str = "login-events";

static JOB: JobFile = JobFile { name: "login_anomalies", source: include_str!("login_anomalies.rs"), build };

fn main() {
    dataflow::main(&JOB)
}

fn build(job: &mut Job) -> Result<()> {
    let emit: Emit = job.param("emit")?;
    let with_raw: bool = job.param("dead_letters_with_raw")?;

    let input = job.read::<LoginEvent>(SOURCE, LOGIN_EVENT_SCHEMA)?;
    let logins = enrich(job, "geo", input.records)?;
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

    job.write("login-events-enriched", distinct, deliver::enriched)?;
    for found in [by_user, by_address] {
        job.write("login-anomalies", found, |topic, said| deliver::anomaly(topic, said, SOURCE))?;
    }
    job.write("login-events-late", late, |topic, late| deliver::late(topic, late, SOURCE))?;
    job.write("login-events-dlq", input.dead, move |topic, letter| {
        deliver::dead_letter(topic, letter, SOURCE, with_raw)
    })
}
