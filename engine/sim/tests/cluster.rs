//! A real Kafka conforms to what the simulated broker conforms to. Needs a broker, `KAFKA_BROKERS`: `compose/e2e/run connectors`.

use dataflow_connectors::kafka_settings::KafkaSinkSettings;
use dataflow_connectors::sink::kafka::Librdkafka;
use dataflow_sim::conformance;
use std::hash::{BuildHasher, Hasher, RandomState};

#[test]
#[ignore = "needs a broker: make e2e"]
fn kafka() {
    let brokers = std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names the broker: run it with 'make e2e'");
    let settings = format!(r#"{{"brokers":"{brokers}","create_topics":{{"partitions":3,"replication":1}}}}"#);
    let settings: KafkaSinkSettings = serde_json::from_str(&settings).expect("settings of a sink");
    let job = format!("conformance-{:016x}", RandomState::new().build_hasher().finish());
    conformance::cluster(&Librdkafka::new("out", settings), &job);
}
