//! The login job in the shapes in which other engines run it too, for figures side by side.
//!
//! | `detectors` | what |
//! | --- | --- |
//! | `none` | each login enriched; nothing is kept |
//! | `two` | that without duplicates, and the findings of new country and unresolved address |
//! | `all` | that, with all seven detectors |
//!
//! Topics are parameters, since a harness gives each run outputs of its own.

use dataflow::prelude::*;

static JOB: JobFile = JobFile { name: "login_peer", source: include_str!("login_peer.rs"), build };

fn main() {
    dataflow::main(&JOB)
}

fn build(job: &mut Job) -> Result<()> {
    let source: String = job.param("input")?;
    let (enriched, anomalies): (String, String) = (job.param("enriched")?, job.param("anomalies")?);
    let detectors: String = job.param("detectors")?;
    let emit: Emit = job.param("emit")?;

    let input = job.read::<LoginEvent>(&source, LOGIN_EVENT_SCHEMA)?;
    let logins = enrich(job, "geo", input.records)?;
    if detectors == "none" {
        return job.write(&enriched, logins, deliver::enriched);
    }
    let (accepted, _) = job.accept(logins);
    let mut found = Vec::new();
    let distinct = if detectors == "all" {
        let of_a_user = (
            NewCountry::default(),
            UnresolvedAddress::default(),
            ImpossibleTravel::default(),
            BruteForce::default(),
            NewDevice::default(),
            Burst::default(),
        );
        let of_an_address = (CredentialStuffing::default(),);
        found.push(keyed_findings(job, "logins-by-address", ByAddress(of_an_address), emit, accepted.clone())?);
        let (distinct, by_user) = keyed_history(job, "logins-by-user", ByUser(of_a_user), emit, accepted)?;
        found.push(by_user);
        distinct
    } else {
        let of_a_user = (NewCountry::default(), UnresolvedAddress::default());
        let (distinct, by_user) = keyed_history(job, "logins-by-user", ByUser(of_a_user), emit, accepted)?;
        found.push(by_user);
        distinct
    };
    job.write(&enriched, distinct, deliver::enriched)?;
    for found in found {
        let source = source.clone();
        job.write(&anomalies, found, move |topic, said| deliver::anomaly(topic, said, &source))?;
    }
    Ok(())
}
