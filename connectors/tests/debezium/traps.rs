//! The traps of the fixture, each by its name, and what no fixture has.

use crate::fixture::{Message, Reading, decode, message, messages, schemas, table};
use dataflow_connectors::decode::UNDECODABLE;
use dataflow_connectors::envelope::debezium::DebeziumJsonDecoder;
use dataflow_connectors::envelope::{
    BAD_POSITION, BareJson, CaseChangeDecoder, Change, ChangeEvent, ChangePosition, INEXACT, Ignored, NO_ROW,
    NOT_A_CHANGE, OUT_OF_RANGE, Op, UNEXPECTED_NULL, UNKNOWN_OP,
};
use dataflow_core::{ColumnType, Datum, Decode, Decoded, Micros, Record, Row, SchemaBinding, SourceId};
use serde_json::{Value, json};

/// The change at `topic@offset`.
fn change(topic: &str, offset: u64) -> Change {
    change_of(decode(&message(topic, offset)))
}

fn change_of(decoded: Decoded<ChangeEvent>) -> Change {
    let Decoded::Value(ChangeEvent::Change(change)) = decoded else { panic!("{decoded:?}") };
    change
}

fn key(id: i32) -> Row {
    [Datum::Int(id)].into_iter().collect()
}

/// A column of the row after a change.
fn column(change: &Change, table_name: &str, name: &str) -> Datum {
    change.row.as_ref().unwrap().get(table(table_name).position(name).unwrap()).clone()
}

#[test]
fn a_null_in_a_column_with_a_default_is_taken_as_it_comes() {
    for topic in ["dbz.public.purchases", "flat.public.purchases"] {
        let change = change(topic, 3);
        assert_eq!(column(&change, "purchases", "status"), Datum::Int(1));
        assert_eq!(column(&change, "purchases", "created_at"), Datum::Timestamp(Micros(0)));
        assert_eq!(column(&change, "purchases", "purchase_price"), Datum::Null);
    }
}

#[test]
fn of_a_deleted_row_nothing_is_read_but_its_key() {
    for topic in ["dbz.public.purchases", "flat.public.purchases", "text.public.purchases", "conn.public.purchases"] {
        let delete = change(topic, 8);
        assert_eq!((delete.op, delete.key, delete.row, delete.replaces), (Op::Delete, key(2), None, None), "{topic}");
        assert!(delete.position.is_some() && delete.unavailable.is_empty());
    }
    // What is made up for a column without nulls does no harm.
    let mut strict = table("users");
    strict.columns.iter_mut().for_each(|column| column.is_nullable = false);
    let deletes = messages().into_iter().filter(|m| m.topic == "dbz.public.users" && m.decoded["value"]["op"] == "d");
    let deleted = deletes.map(|m| change_of(Reading::new(strict.clone()).decode(&m.record)).key);
    assert_eq!(deleted.collect::<Vec<_>>(), [key(3), key(900)]);
}

#[test]
fn a_position_is_the_sequence_which_never_falls() {
    for prefix in ["dbz", "text"] {
        for name in ["users", "items", "purchases", "notes"] {
            let mut reading = Reading::new(table(name));
            let mut last = None;
            for message in messages().iter().filter(|m| m.prefix == prefix && m.table == name) {
                let position = match reading.decode(&message.record) {
                    Decoded::Value(ChangeEvent::Change(change)) => change.position,
                    Decoded::Value(ChangeEvent::Truncate { position, .. }) => position,
                    _ => continue,
                };
                assert!(position.is_some() && position >= last, "{}@{}", message.topic, message.record.offset);
                last = position;
            }
        }
    }
    // The LSN alone falls, and an incremental snapshot has none.
    let lsn = |offset| change("dbz.public.users", offset).position.unwrap();
    assert_eq!((lsn(17), lsn(18)), (ChangePosition(26_561_840, 26_562_000), ChangePosition(26_562_536, 26_561_840)));
    let incremental = change("text.public.items", 11);
    assert_eq!((incremental.op, incremental.position), (Op::Read, Some(ChangePosition(26_562_744, 26_562_744))));
}

#[test]
fn a_truncate_of_several_tables_has_one_position() {
    let truncates = [("users", 20), ("items", 11), ("purchases", 10)].map(|(name, offset)| {
        match decode(&message(&format!("dbz.public.{name}"), offset)) {
            Decoded::Value(ChangeEvent::Truncate { position, transaction }) => (position, transaction.unwrap().id),
            other => panic!("{other:?}"),
        }
    });
    assert!(truncates.iter().all(|one| *one == (Some(ChangePosition(26_569_016, 26_573_344)), "793".into())));
}

#[test]
fn a_changed_key_is_a_delete_and_a_create_with_one_position() {
    for prefix in ["dbz", "flat", "text"] {
        let topic = format!("{prefix}.public.items");
        let (delete, create) = (change(&topic, 7), change(&topic, 9));
        assert_eq!((delete.op, delete.key), (Op::Delete, key(4)));
        assert_eq!((create.op, create.key), (Op::Create, key(1004)));
        assert_eq!(delete.position, create.position);
        assert_eq!(decode(&message(&topic, 8)), Decoded::Value(ChangeEvent::Ignored(Ignored::Tombstone)));
    }
}

#[test]
fn the_id_of_a_transaction_is_the_part_before_the_colon() {
    let of = |topic: &str, offset| change(topic, offset).transaction.unwrap();
    let (first, second) = (of("dbz.public.users", 18), of("dbz.public.users", 19));
    assert_eq!((&*first.id, first.order, first.table_order), ("782", 1, 1));
    assert_eq!((&*second.id, second.order, second.table_order), ("782", 2, 2));
    assert_eq!(change("text.public.users", 3).transaction, None);
}

#[test]
fn the_branch_of_a_union_is_found_by_its_type() {
    // `created_at` is [T, "null"], because it has a default, and `email` is ["null", T].
    let ann = change("dbz.public.users", 0);
    assert_eq!(column(&ann, "users", "email"), "ann@example.com".into());
    assert_eq!(column(&ann, "users", "created_at"), Datum::Timestamp(Micros(1_767_323_045_678_901)));
    assert_eq!(column(&change("dbz.public.users", 2), "users", "email"), Datum::Null);
}

#[test]
fn times_without_a_logical_type_are_told_by_their_connect_name() {
    let micros = Datum::Timestamp(Micros(1_767_323_045_678_901));
    let millis = Datum::Timestamp(Micros(1_767_323_045_678_000));
    for (prefix, expected) in [("dbz", &micros), ("flat", &micros), ("text", &micros), ("conn", &millis)] {
        assert_eq!(&column(&change(&format!("{prefix}.public.notes"), 0), "notes", "local_at"), expected);
        assert_eq!(column(&change(&format!("{prefix}.public.notes"), 0), "notes", "day"), Datum::Date(-1));
    }
}

#[test]
fn dates_beyond_calendars() {
    for prefix in ["dbz", "flat", "text", "conn"] {
        let topic = format!("{prefix}.public.notes");
        let infinite = change(&topic, 5);
        for name in ["at", "local_at"] {
            assert_eq!(column(&infinite, "notes", name), Datum::Timestamp(Micros(9_223_372_036_825_200_000)));
        }
        assert_eq!(column(&change(&topic, 6), "notes", "local_at"), Datum::Timestamp(Micros(-62_167_219_200_000_000)));
        // The year 294276: a dead letter where it is seen, and what came of it where it is not.
        assert_eq!(decode(&message(&topic, 7)), Decoded::Dead(OUT_OF_RANGE));
        let mut table = table("notes");
        table.columns[6].name = "another".to_owned();
        let decoded = Reading::new(table).decode(&message(&topic, 7).record);
        assert_eq!(matches!(decoded, Decoded::Value(_)), ["dbz", "flat"].contains(&prefix), "{topic}: {decoded:?}");
    }
}

#[test]
fn a_decimal_has_the_scale_of_its_writer() {
    let price = |offset, precision, scale| {
        let mut table = table("items");
        table.columns[3].kind = ColumnType::Decimal { precision, scale };
        let decoded = Reading::new(table).decode(&message("dbz.public.items", offset).record);
        match decoded {
            Decoded::Value(ChangeEvent::Change(change)) => Ok(change.row.unwrap().get(3).clone()),
            Decoded::Dead(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    // decimal(10,2), and decimal(14,4) from offset 10 on.
    assert_eq!(price(0, 10, 2), Ok(Datum::Decimal(999)));
    assert_eq!(price(1, 10, 2), Ok(Datum::Decimal(-1_234_567_890)));
    assert_eq!(price(0, 14, 4), Ok(Datum::Decimal(99_900)));
    assert_eq!(price(10, 14, 4), Ok(Datum::Decimal(12_345)));
    assert_eq!(price(10, 10, 2), Err(INEXACT));
    assert_eq!(price(2, 9, 2), Err(OUT_OF_RANGE));
    // A sign that needs a second byte, and a number that is nearly zero from below.
    let paid = |prefix: &str, offset| {
        column(&change(&format!("{prefix}.public.purchases"), offset), "purchases", "purchase_price")
    };
    for prefix in ["dbz", "flat", "text", "conn"] {
        assert_eq!(paid(prefix, 1), Datum::Decimal(999_999_999_999));
        assert_eq!(paid(prefix, 2), Datum::Decimal(-1));
        assert_eq!(paid(prefix, 4), Datum::Decimal(-999_999_999_999));
        assert_eq!(paid(prefix, 5), Datum::Decimal(0));
        assert_eq!(paid(prefix, 6), Datum::Decimal(128));
    }
    // Without a precision: a record of scale and number.
    let amount = Datum::Decimal(-1_234_567_890_123_456_789_012_345_678);
    assert_eq!(column(&change("dbz.public.notes", 0), "notes", "amount"), amount);
    assert_eq!(column(&change("text.public.notes", 0), "notes", "amount"), amount);
}

#[test]
fn a_value_that_was_not_sent_is_that_of_the_current_row() {
    let table = table("notes");
    let at = |name: &str| table.position(name).unwrap();
    for (prefix, unsent) in [("dbz", vec!["body", "doc", "raw"]), ("text", vec!["body", "doc"])] {
        let topic = format!("{prefix}.public.notes");
        let (big, renamed) = (change(&topic, 0), change(&topic, 2));
        assert_eq!(renamed.unavailable, unsent.iter().map(|name| at(name)).collect::<Vec<_>>());
        let completed = renamed.completed(big.row.as_ref()).unwrap();
        assert_eq!(completed.get(at("title")), &"big, renamed".into());
        assert_eq!(completed.get(at("body")), &column(&big, "notes", "body"));
        // In base64 what was not sent is null, and can not be told from one.
        let raw = if prefix == "dbz" { column(&big, "notes", "raw") } else { Datum::Null };
        assert_eq!(completed.get(at("raw")), &raw);
        assert_eq!(column(&change(&topic, 4), "notes", "body"), Datum::Null);
        assert_eq!(change(&topic, 4).unavailable, [0; 0]);
    }
    // With the whole old row in each change Debezium knows the value.
    assert_eq!(change("dbz.public.notes_full", 1).unavailable, [0; 0]);
}

#[test]
fn a_schema_changes_in_the_midst_of_the_stream() {
    for (prefix, [added, with_default, dropped]) in
        [("dbz", [13, 15, 16]), ("flat", [13, 15, 16]), ("text", [13, 15, 16])]
    {
        let topic = format!("{prefix}.public.users");
        let of = |offset| {
            let change = change(&topic, offset);
            (column(&change, "users", "phone"), column(&change, "users", "tier"))
        };
        assert_eq!(of(0), (Datum::Null, Datum::Null));
        assert_eq!(of(added), ("+46 1".into(), Datum::Null));
        assert_eq!(of(with_default), (Datum::Null, Datum::Int(8)));
        assert_eq!(of(dropped), (Datum::Null, Datum::Int(7)));
    }
    // A column that the job must have is not made up where the writer lacks it.
    let mut strict = table("users");
    strict.columns.last_mut().unwrap().is_nullable = false;
    let decoded = Reading::new(strict).decode(&message("dbz.public.users", 0).record);
    assert_eq!(decoded, Decoded::Dead(UNEXPECTED_NULL));
}

#[test]
fn without_a_key_the_whole_row_is_the_key() {
    let row = |place: &str, n| -> Row { [place.into(), Datum::Int(n)].into_iter().collect() };
    let (update, delete) = (change("dbz.public.visits", 2), change("dbz.public.visits", 3));
    assert_eq!((update.key, update.replaces), (row("mug", 3), Some(row("mug", 2))));
    assert_eq!((delete.key, delete.row), (row("mug", 3), None));
    // Key and value are null.
    assert_eq!(decode(&message("dbz.public.visits", 4)), Decoded::Value(ChangeEvent::Ignored(Ignored::Tombstone)));
}

#[test]
fn an_id_means_the_same_in_every_subject_and_a_replay_binds_it() {
    let heartbeats = ["__debezium-heartbeat.dbz", "__debezium-heartbeat.flat"].map(|topic| message(topic, 0));
    let mut reading = Reading::new(table("users"));
    for heartbeat in &heartbeats {
        assert_eq!(reading.decode(&heartbeat.record), Decoded::Value(ChangeEvent::Ignored(Ignored::Heartbeat)));
    }
    let bound = reading.decoder.resolved();
    assert_eq!(bound.len(), 1);
    // A replay knows what was bound, and nothing else.
    let mut replaying = Reading::new(table("users"));
    let hash = replaying.store.put(&schemas()[&35]).unwrap();
    assert_eq!(bound, [SchemaBinding { source: SourceId(1), id: 35, hash: Some(hash) }]);
    replaying.decoder.begin(7, Some(&bound)).unwrap();
    assert_eq!(
        replaying.decoder.decode(&heartbeats[0].record),
        Decoded::Value(ChangeEvent::Ignored(Ignored::Heartbeat))
    );
    assert_eq!(replaying.decoder.decode(&message("dbz.public.users", 0).record), Decoded::Dead(UNDECODABLE));
    // Before the registry has answered nothing is decided.
    let mut asking = Reading::new(table("users"));
    asking.decoder.foresee(&heartbeats[0].record);
    assert_eq!(asking.decoder.decode(&heartbeats[0].record), Decoded::Unresolved);
    assert!(asking.decoder.resolving().is_ok());
}

#[test]
fn a_message_of_an_application_is_ignored_and_a_foreign_record_is_dead() {
    for prefix in ["dbz", "flat", "text", "conn"] {
        let decoded = decode(&message(&format!("{prefix}.message"), 0));
        assert_eq!(decoded, Decoded::Value(ChangeEvent::Ignored(Ignored::Message)));
    }
    let foreign = r#"{"type":"record","name":"W","fields":[{"name":"id","type":"int"}]}"#.to_owned();
    let mut reading = Reading::with(table("users"), [(9, foreign)].into());
    let framed = |value: &[u8]| Record { offset: 0, key: None, value: Some(value.to_vec().into()) };
    assert_eq!(reading.decode(&framed(&[0, 0, 0, 0, 9, 2])), Decoded::Dead(NOT_A_CHANGE));
    assert_eq!(reading.decode(&framed(&[0, 0, 0, 0, 9])), Decoded::Dead(UNDECODABLE));
    assert_eq!(reading.decode(&framed(&[0, 0, 0, 0, 8, 2])), Decoded::Dead(UNDECODABLE));
    assert_eq!(reading.decode(&framed(b"{}")), Decoded::Dead(UNDECODABLE));
}

/// A bare envelope of `visits`, with some of its members replaced.
fn bare(members: Value) -> Decoded<ChangeEvent> {
    let mut envelope = json!({
        "before": null, "after": {"place": "cup", "n": 1}, "op": "c", "ts_ms": 1, "transaction": null,
        "source": {"lsn": 7, "sequence": null}
    });
    members.as_object().unwrap().iter().for_each(|(name, value)| envelope[name] = value.clone());
    let mut decoder = DebeziumJsonDecoder::new(table("visits"), BareJson::default()).unwrap();
    decoder.decode(&Record { offset: 0, key: None, value: Some(envelope.to_string().into()) })
}

#[test]
fn what_an_envelope_lacks() {
    assert_eq!(change_of(bare(json!({}))).position, Some(ChangePosition(7, 7)));
    assert_eq!(change_of(bare(json!({"source": {}}))).position, None);
    assert_eq!(bare(json!({"source": {"lsn": -1}})), Decoded::Dead(BAD_POSITION));
    assert_eq!(bare(json!({"source": {"sequence": "[7]"}})), Decoded::Dead(BAD_POSITION));
    assert_eq!(bare(json!({"source": "cup"})), Decoded::Dead(NOT_A_CHANGE));
    assert_eq!(bare(json!({"op": "x"})), Decoded::Dead(UNKNOWN_OP));
    assert_eq!(bare(json!({"op": null})), Decoded::Dead(NOT_A_CHANGE));
    assert_eq!(bare(json!({"after": null})), Decoded::Dead(NO_ROW));
    assert_eq!(bare(json!({"op": "d"})), Decoded::Dead(NO_ROW));
    assert_eq!(bare(json!({"after": [1]})), Decoded::Dead(UNDECODABLE));
}

#[test]
fn an_update_whose_old_key_is_another_takes_the_old_row_away() {
    let mut keyed = table("visits");
    keyed.key = vec![0];
    let update = |old: &str| {
        let line = json!({
            "before": {"place": old, "n": 1}, "after": {"place": "mug", "n": 1}, "op": "u", "source": {"lsn": 7}
        });
        let mut decoder = DebeziumJsonDecoder::new(keyed.clone(), BareJson::default()).unwrap();
        change_of(decoder.decode(&Record { offset: 0, key: None, value: Some(line.to_string().into()) })).replaces
    };
    assert_eq!(update("cup"), Some(["cup".into()].into_iter().collect()));
    assert_eq!(update("mug"), None);
}

#[test]
fn lines_of_a_case() {
    let lines = [
        r#"{"table":"items","op":"r","before":null,"after":{"id":1,"name":"Cup","category":"home","price":"9.99","inventory":3,"created_at":"2026-03-28T09:09:18.136430Z","updated_at":"2026-03-28T09:09:18.136430Z"},"lsn":24000000,"ts_ms":1774688958228}"#,
        r#"{"after":{"category":"__debezium_unavailable_value","created_at":"1970-01-01T00:00:00.000000Z","id":1,"name":"Cup","price":null,"inventory":3,"updated_at":"1970-01-01T00:00:00.000000Z"},"before":null,"lsn":24000001,"op":"u","table":"items","ts_ms":1}"#,
        r#"{"table":"items","op":"d","before":{"id":1,"name":null,"category":null,"price":null,"inventory":null,"created_at":null,"updated_at":null},"after":null,"lsn":24000002,"ts_ms":1}"#,
        r#"{"table":"items","op":"t","before":null,"after":null,"lsn":24000003,"ts_ms":1}"#,
        r#"{"table":"users","op":"t","before":null,"after":null,"lsn":24000003,"ts_ms":1}"#,
        "{}",
    ];
    let mut decoder = CaseChangeDecoder::new("items", table("items")).unwrap();
    let mut decode = |line: &str| decoder.decode(&Record { offset: 0, key: None, value: Some(line.to_owned().into()) });
    let [read, update, delete] = [0, 1, 2].map(|at| change_of(decode(lines[at])));
    assert_eq!((read.op, read.position), (Op::Read, Some(ChangePosition(24_000_000, 24_000_000))));
    assert_eq!(column(&read, "items", "price"), Datum::Decimal(99_900));
    assert_eq!((update.unavailable, update.key), (vec![2], key(1)));
    assert_eq!((delete.op, delete.key, delete.row), (Op::Delete, key(1), None));
    let position = Some(ChangePosition(24_000_003, 24_000_003));
    assert_eq!(decode(lines[3]), Decoded::Value(ChangeEvent::Truncate { position, transaction: None }));
    assert_eq!(decode(lines[4]), Decoded::Value(ChangeEvent::Ignored(Ignored::OtherTable)));
    assert_eq!(decode(lines[5]), Decoded::Dead(UNDECODABLE));
}

#[test]
fn a_repeated_event_differs_in_its_bytes_and_not_in_what_it_says() {
    let Message { record, decoded, .. } = message("dbz.public.users", 4);
    let mut reading = Reading::new(table("users"));
    let first = reading.decode(&record);
    // After a crash `ts_ms`, in the record's last fields, is new.
    let mut again = record.value.unwrap().to_vec();
    let at = again.len() - 2;
    again[at] ^= 1;
    let again = Record { offset: 99, key: None, value: Some(again.into()) };
    assert_eq!(reading.decode(&again), first, "{decoded}");
}
