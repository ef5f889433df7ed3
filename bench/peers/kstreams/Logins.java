package kstreams;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import login.Geography;
import login.Recent;
import org.apache.avro.Schema;
import org.apache.avro.SchemaBuilder;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The login job on Kafka Streams: one processor between the input and the outputs, with a store of recent login times when it detects.
 *
 * <p>Settings come from the environment, see the script beside this file. An exception ends the process: the script starts it again.
 */
public final class Logins {
  private static final String[] NOWHERE = {null, null};
  private static final long CACHE_BYTES = 64L << 20;
  private static final CountDownLatch FIRST_RECORD = new CountDownLatch(1);

  private Logins() {}

  public static void main(String[] arguments) throws Exception {
    Geography<String[]> geography = new Geography<>(Path.of(env("GEO_CSV")), (country, city) -> new String[] {country, city});
    boolean detects = env("JOB").equals("b");
    KafkaStreams streams = new KafkaStreams(topology(geography, detects), properties(env("GUARANTEE").equals("eo")));
    streams.setUncaughtExceptionHandler(failure -> {
      failure.printStackTrace();
      Runtime.getRuntime().halt(3);
      return null;
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.start();
    FIRST_RECORD.await();
    System.out.println("consuming since " + System.currentTimeMillis());
    Thread.currentThread().join();
  }

  private static String env(String name) {
    return System.getenv(name);
  }

  private static Topology topology(Geography<String[]> geography, boolean detects) {
    ByteArrayDeserializer in = new ByteArrayDeserializer();
    ByteArraySerializer out = new ByteArraySerializer();
    Topology topology = new Topology()
        .addSource("logins", in, in, env("INPUT"))
        .addProcessor("job", () -> new Job(geography, detects), "logins")
        .addSink("enriched", env("ENRICHED"), out, out, "job");
    if (detects) {
      topology
          .addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("recent"), Serdes.String(), Serdes.ByteArray())
              .withCachingEnabled(), "job")
          .addSink("anomalies", env("ANOMALIES"), out, out, "job");
    }
    return topology;
  }

  private static Properties properties(boolean exactlyOnce) {
    Properties properties = new Properties();
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, env("APPLICATION"));
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env("KAFKA_BROKERS"));
    properties.put(StreamsConfig.STATE_DIR_CONFIG, env("STATE"));
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, exactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
    properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, env("COMMIT_MS"));
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, CACHE_BYTES);
    properties.put("auto.offset.reset", "earliest");
    // A static member takes its partitions over at once after a crash, without waiting for the session to time out.
    properties.put("group.instance.id", "logins");
    return properties;
  }

  /** Decodes, enriches, and where asked keeps the recent logins of each user and country. */
  private static final class Job implements Processor<byte[], byte[], byte[], byte[]> {
    private final Geography<String[]> geography;
    private final boolean detects;
    private final JsonFactory json = new ObjectMapper().getFactory();
    private final ByteArrayOutputStream buffer = new ByteArrayOutputStream(512);
    private final Map<Integer, GenericDatumReader<GenericRecord>> readers = new HashMap<>();
    private BinaryDecoder decoder;
    private GenericRecord login;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> recent;

    Job(Geography<String[]> geography, boolean detects) {
      this.geography = geography;
      this.detects = detects;
    }

    @Override public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      recent = detects ? context.getStateStore("recent") : null;
    }

    @Override public void process(Record<byte[], byte[]> record) {
      FIRST_RECORD.countDown();
      try {
        process(record.value(), record.timestamp());
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }

    private void process(byte[] value, long produced) throws IOException {
      ByteBuffer frame = ByteBuffer.wrap(value);
      if (frame.get() != 0) throw new IOException("a record without Confluent framing");
      GenericDatumReader<GenericRecord> reader = readers.computeIfAbsent(frame.getInt(), Schemas::reader);
      decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
      login = reader.read(login, decoder);
      String user = (String) login.get(0), timestamp = (String) login.get(1), ip = (String) login.get(2), platform = (String) login.get(4);
      String device = ((String) login.get(3)).toLowerCase(Locale.ROOT);
      String[] found = geography.find(ip), place = found == null ? NOWHERE : found;
      byte[] key = object("user_id", user, "timestamp", timestamp);
      String type = device.contains("iphone") || device.contains("android") ? "mobile" : "desktop";
      byte[] enriched = object("user_id", user, "timestamp", timestamp, "ip", ip, "platform", platform, "device_type", type,
          "country", place[0], "city", place[1]);
      context.forward(new Record<>(key, enriched, produced), "enriched");
      if (detects && isNew(user + "|" + place[0], Recent.micros(timestamp))) {
        String reason = place[0] == null ? "Login from unresolved address" : "Login from new country";
        byte[] anomaly = object("user_id", user, "timestamp", timestamp, "reason", reason, "country", place[0]);
        context.forward(new Record<>(key, anomaly, produced), "anomalies");
      }
    }

    private boolean isNew(String key, long t) {
      byte[] stored = recent.get(key);
      long[] seen = new long[stored == null ? 0 : stored.length / 8];
      if (stored != null) ByteBuffer.wrap(stored).asLongBuffer().get(seen);
      long[] kept = Recent.with(seen, t);
      ByteBuffer bytes = ByteBuffer.allocate(8 * kept.length);
      bytes.asLongBuffer().put(kept);
      recent.put(key, bytes.array());
      return Recent.isNew(seen, t);
    }

    /** A JSON object of names and values in turn. */
    private byte[] object(String... fields) throws IOException {
      buffer.reset();
      try (JsonGenerator object = json.createGenerator(buffer)) {
        object.writeStartObject();
        for (int i = 0; i < fields.length; i += 2) object.writeStringField(fields[i], fields[i + 1]);
        object.writeEndObject();
      }
      return buffer.toByteArray();
    }
  }

  /** Readers of what the registry's schemas wrote. */
  private static final class Schemas {
    private static final Schema LOGIN = SchemaBuilder.record("LoginEvent").namespace("com.shop.events").fields()
        .requiredString("user_id").requiredString("timestamp").requiredString("ip")
        .requiredString("device").requiredString("platform").requiredString("user_agent").endRecord();

    static {
      LOGIN.getFields().forEach(field -> field.schema().addProp("avro.java.string", "String"));
    }

    static GenericDatumReader<GenericRecord> reader(int id) {
      URI uri = URI.create(env("REGISTRY_URL") + "/schemas/ids/" + id);
      try {
        String answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body();
        return new GenericDatumReader<>(new Schema.Parser().parse(new ObjectMapper().readTree(answer).get("schema").asText()), LOGIN);
      } catch (IOException | InterruptedException failure) {
        throw new IllegalStateException("fetch schema " + id, failure);
      }
    }
  }
}
