//! What the parts on a login's way cost, each alone: `cargo bench --package dataflow-bench --bench components [NAME]`.
//!
//! | group | what is timed |
//! | --- | --- |
//! | `avro` | a framed record into a login, beside `apache-avro` and `serde_avro_fast` |
//! | `state` | a key loaded, changed, and its epoch ended; on the heap and in RocksDB |
//! | `history` | a login through the keyed history, with two detectors and with the six of a user |
//! | `rows` | a login, and a finding, as a row of the sink |
//! | `epoch` | an epoch without a record through a whole job |
//! | `parquet` | rows of a table into a file, beside Arrow's own writer |
//!
//! Kafka's part is not here, since it needs a broker: `bench/run ingest`.

mod avro;
mod epoch;
mod history;
mod logins;
mod parquet;
mod rows;
mod state;

/// As in a job's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion::criterion_group!(
    components,
    avro::bench,
    state::bench,
    history::bench,
    rows::bench,
    epoch::bench,
    parquet::bench
);
criterion::criterion_main!(components);
