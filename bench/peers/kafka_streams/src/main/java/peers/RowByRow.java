package peers;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import sun.misc.Signal;

/** Kafka Streams: {@code ride_started} in, {@code predictions} out, one ride at a time, until SIGTERM. */
public final class RowByRow {
    private static final Map<String, String> GUARANTEES =
            Map.of("exactly_once", StreamsConfig.EXACTLY_ONCE_V2, "at_least_once", StreamsConfig.AT_LEAST_ONCE);
    private static final Set<String> REQUIRED =
            Set.of("--bootstrap", "--input", "--output", "--group", "--guarantee", "--model", "--schema-id");
    private static final Set<String> OPTIONAL = Set.of("--commit-interval", "--threads");

    private RowByRow() {}

    /** Runs with {@code --option value} pairs; exits 0 after SIGTERM, 1 when scoring fails, 2 on wrong options. */
    public static void main(String[] args) throws IOException, InterruptedException, OrtException {
        Map<String, String> options = options(args);
        Path state = Files.createTempDirectory("kafka-streams-");
        CountDownLatch stop = new CountDownLatch(1);
        Signal.handle(new Signal("TERM"), signal -> stop.countDown());
        KafkaStreams streams = new KafkaStreams(topology(options), configuration(options, state));
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                stop.countDown();
            }
        });
        streams.start();
        stop.await();
        boolean failed = streams.state() == KafkaStreams.State.ERROR;
        streams.close(Duration.ofSeconds(20));
        streams.cleanUp();
        Files.deleteIfExists(state);
        System.exit(failed ? 1 : 0);
    }

    private static Topology topology(Map<String, String> options) throws IOException, OrtException {
        Path folder = Path.of(options.get("--model"));
        JsonNode card = new ObjectMapper().readTree(folder.resolve("model.json").toFile());
        String name = card.required("name").textValue();
        String version = card.required("version").textValue();
        int schemaId = Integer.parseInt(options.get("--schema-id"));
        OrtSession session = DurationModel.load(folder.resolve("model.onnx"));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(options.get("--input"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .processValues(() -> new RideScorer(session, name, version, schemaId))
                .to(options.get("--output"), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        return builder.build();
    }

    private static Properties configuration(Map<String, String> options, Path state) {
        Properties configuration = new Properties();
        configuration.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("--group"));
        configuration.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("--bootstrap"));
        configuration.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, GUARANTEES.get(options.get("--guarantee")));
        configuration.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.getOrDefault("--threads", "1"));
        configuration.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        if (options.containsKey("--commit-interval")) {
            configuration.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.get("--commit-interval"));
        }
        return configuration;
    }

    private static Map<String, String> options(String[] args) {
        Map<String, String> options = new HashMap<>();
        for (int index = 0; index + 1 < args.length; index += 2) {
            options.put(args[index], args[index + 1]);
        }
        boolean known = options.keySet().stream().allMatch(name -> REQUIRED.contains(name) || OPTIONAL.contains(name));
        if (args.length % 2 != 0
                || !known
                || !options.keySet().containsAll(REQUIRED)
                || !GUARANTEES.containsKey(options.get("--guarantee"))) {
            System.err.println("usage: row-by-row --bootstrap HOST:PORT --input TOPIC --output TOPIC --group GROUP"
                    + " --guarantee exactly_once|at_least_once --model DIR --schema-id N"
                    + " [--commit-interval MS] [--threads N]");
            System.exit(2);
        }
        return options;
    }
}
