//! The same against an S3 service: `compose/e2e/run objects` starts one.

use crate::world::{Packed, World, lines, packed, texts};
use bytes::Bytes;
use dataflow_connectors::s3::{REGION, S3Place};
use dataflow_connectors::source::objects::{Location, PENDING_MAX};
use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run it with 'compose/e2e/run objects'"))
}

/// A prefix of its own in the bucket.
struct Prefix {
    name: &'static str,
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl Prefix {
    fn new(name: &'static str) -> Prefix {
        let store = AmazonS3Builder::new()
            .with_bucket_name(var("S3_BUCKET"))
            .with_endpoint(var("S3_ENDPOINT"))
            .with_region(REGION)
            .with_access_key_id(var("AWS_ACCESS_KEY_ID"))
            .with_secret_access_key(var("AWS_SECRET_ACCESS_KEY"))
            .with_allow_http(true)
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Prefix { name, store: store.unwrap(), runtime }
    }

    fn world(&self) -> World {
        self.world_behind(var("S3_ENDPOINT"))
    }

    fn world_behind(&self, endpoint: String) -> World {
        let keys = Some((var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")));
        let location = format!("s3://{}/{}", var("S3_BUCKET"), self.name);
        World::new(Location::S3(S3Place { location, endpoint: Some(endpoint), region: REGION.to_owned(), keys }))
    }

    fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let path = Path::from(format!("{}/{key}", self.name));
        self.runtime.block_on(self.store.put(&path, bytes.into().into())).unwrap();
    }

    fn remove(&self, key: &str) {
        self.runtime.block_on(self.store.delete(&Path::from(format!("{}/{key}", self.name)))).unwrap();
    }

    /// Puts many, some at a time.
    fn put_all(&self, keys: impl Iterator<Item = (String, String)>) {
        use futures_util::{StreamExt, stream};
        let puts = keys.map(|(key, text)| {
            let store = &self.store;
            async move { store.put(&Path::from(format!("{}/{key}", self.name)), text.into()).await.unwrap() }
        });
        self.runtime.block_on(stream::iter(puts).buffer_unordered(16).for_each(|_| async {}));
    }
}

#[test]
#[ignore = "needs an S3 service: compose/e2e/run objects"]
fn objects_are_read_once_and_replayed_under_their_etags() {
    let prefix = Prefix::new("once");
    let world = prefix.world();
    let large: Vec<String> = (0..40_000).map(|n| format!("{n:09} {}", "y".repeat(200))).collect();
    prefix.put("b/1.gz", packed(Packed::Gzip, b"b1\nb2"));
    prefix.put("a/large", large.join("\n"));
    prefix.put("a/empty", "");
    let mut life = world.begin(0).unwrap();
    let mut read = life.read(None, 5_000).unwrap();
    prefix.put("a/0 late?.zst", packed(Packed::Zstd, b"late\n"));
    read.extend(life.read(None, 10).unwrap());
    let mut expected: Vec<&str> = large.iter().map(String::as_str).collect();
    expected.extend(["b1", "b2", "late"]);
    assert!(lines(&read) == texts(&expected));
    assert!(world.begin(12_345).unwrap().read(Some(40_003), 1_000).unwrap() == read[12_345..]);

    prefix.put("b/1.gz", "changed");
    assert_eq!(life.read(None, 10).unwrap(), []);
    assert_eq!(life.counters.changed.load(Ordering::Relaxed), 1);
    let said = world.begin(0).unwrap().read(Some(40_003), 5_000).unwrap_err().to_string();
    assert!(said.contains("'once/b/1.gz'") && said.contains("changed"), "{said}");
    prefix.remove("a/large");
    let said = world.begin(7).unwrap().read(Some(10), 5_000).unwrap_err().to_string();
    assert!(said.contains("'once/a/large'") && said.contains("gone"), "{said}");
    assert_eq!(lines(&world.begin(40_002).unwrap().read(Some(40_003), 10).unwrap()), texts(&["late"]));
}

#[test]
#[ignore = "needs an S3 service: compose/e2e/run objects"]
fn more_objects_than_are_held_are_found_in_several_listings() {
    let prefix = Prefix::new("many");
    let count = PENDING_MAX + 1_500;
    prefix.put_all((0..count).map(|n| (format!("{:05}", n * 7_919 % 100_003), format!("{n}\n"))));
    let world = prefix.world();
    let mut life = world.begin(0).unwrap();
    let mut read: Vec<usize> = Vec::new();
    let number = |line: Option<Bytes>| std::str::from_utf8(&line.unwrap()).unwrap().parse::<usize>().unwrap();
    read.extend(lines(&life.read(None, 5_000).unwrap()).into_iter().map(number));
    assert_eq!(read.len(), count);
    read.sort_unstable();
    assert!(read.into_iter().eq(0..count));
    // Both kinds of new keys: after the greatest, and before it.
    prefix.put("99999z", "after");
    prefix.put("0000", "before");
    let mut late = lines(&life.read(None, 10).unwrap());
    late.extend(lines(&life.read(None, 10).unwrap()));
    late.sort_unstable();
    assert_eq!(late, texts(&["after", "before"]));
}

/// Stands before the service, and passes on so many bytes of its answers and no more.
struct Proxy {
    endpoint: String,
    left: Arc<AtomicUsize>,
}

impl Proxy {
    #[expect(clippy::disallowed_methods, reason = "it stands outside of the product")]
    fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let budget = left.clone();
        let service = var("S3_ENDPOINT").strip_prefix("http://").unwrap().to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().map(|client| client.unwrap()) {
                let (service, budget) = (TcpStream::connect(&service).unwrap(), budget.clone());
                let (from, to) = (client.try_clone().unwrap(), service.try_clone().unwrap());
                std::thread::spawn(move || pass(from, to, &AtomicUsize::new(usize::MAX)));
                std::thread::spawn(move || pass(service, client, &budget));
            }
        });
        Proxy { endpoint, left }
    }
}

/// Passes bytes on while `left` is not used up; then both connections are cut.
fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let before = left.load(Ordering::SeqCst);
        left.store(if before == usize::MAX { before } else { before.saturating_sub(length) }, Ordering::SeqCst);
        if to.write_all(&bytes[..length.min(before)]).is_err() || before < length {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[test]
#[ignore = "needs an S3 service: compose/e2e/run objects"]
fn a_service_that_is_away_is_waited_for() {
    let (prefix, proxy) = (Prefix::new("away"), Proxy::start());
    let world = prefix.world_behind(proxy.endpoint.clone());
    prefix.put("a", "a1\n");
    let mut life = world.begin(0).unwrap();
    assert_eq!(lines(&life.read(None, 10).unwrap()), texts(&["a1"]));

    // For longer than the client repeats its requests.
    proxy.left.store(0, Ordering::SeqCst);
    prefix.put("b", "b1\nb2\n");
    assert_eq!(life.read(None, 10).unwrap(), []);
    proxy.left.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(lines(&life.read(None, 10).unwrap()), texts(&["b1", "b2"]));

    // In the midst of an object, which is read in three ranges.
    let large: Vec<String> = (0..60_000).map(|n| format!("{n:09} {}", "y".repeat(200))).collect();
    prefix.put("c", packed(Packed::Plain, large.join("\n").as_bytes()));
    proxy.left.store(6 << 20, Ordering::SeqCst);
    let mut read = life.read_some(100_000).unwrap();
    assert!(!read.is_empty() && read.len() < large.len(), "{} lines", read.len());
    proxy.left.store(usize::MAX, Ordering::SeqCst);
    read.extend(life.read(None, 100_000).unwrap());
    assert!(lines(&read) == texts(&large.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(world.begin(3).unwrap().read(Some(60_003), 100_000).unwrap() == read);
}

#[test]
#[ignore = "needs an S3 service: compose/e2e/run objects"]
fn a_bucket_that_is_not_there_is_an_error() {
    let keys = Some((var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY")));
    let (location, endpoint) = ("s3://no-such-bucket/x".to_owned(), Some(var("S3_ENDPOINT")));
    let world = World::new(Location::S3(S3Place { location, endpoint, region: REGION.to_owned(), keys }));
    let said = world.begin(0).unwrap().read(None, 10).unwrap_err().to_string();
    assert!(said.contains("s3://no-such-bucket/x"), "{said}");
}
