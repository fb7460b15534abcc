package peers;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.UUID;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/**
 * Turns a ride into its prediction, both in Avro behind the five bytes of Confluent's wire format.
 *
 * <p>Kafka Streams makes one for each partition and runs it in one thread, so decoder, encoder and records are reused.
 */
final class RideScorer extends ContextualFixedKeyProcessor<byte[], byte[], byte[]> {
    private static final int HEADER = 5;
    private static final Schema RIDE = schema("ride_started.v1.avsc");
    private static final Schema PREDICTION = schema("prediction.v1.avsc");

    private final GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(RIDE);
    private final GenericDatumWriter<GenericRecord> writer = new GenericDatumWriter<>(PREDICTION);
    private final GenericRecord prediction = new GenericData.Record(PREDICTION);
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    private final DataOutputStream output = new DataOutputStream(bytes);
    private final OrtSession session;
    private final String idSuffix;
    private final int schemaId;
    private DurationModel model;
    private GenericRecord ride;
    private BinaryDecoder decoder;
    private BinaryEncoder encoder;

    /** Scores by the model of this session, called so in the predictions, which are written with {@code schemaId}. */
    RideScorer(OrtSession session, String name, String version, int schemaId) {
        this.session = session;
        this.idSuffix = "\0" + name + "\0" + version;
        this.schemaId = schemaId;
        prediction.put("model", name);
        prediction.put("model_version", version);
    }

    @Override
    public void init(FixedKeyProcessorContext<byte[], byte[]> context) {
        super.init(context);
        try {
            model = new DurationModel(session);
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public void process(FixedKeyRecord<byte[], byte[]> record) {
        try {
            byte[] value = record.value();
            decoder = DecoderFactory.get().binaryDecoder(value, HEADER, value.length - HEADER, decoder);
            ride = reader.read(ride, decoder);
            context().forward(record.withValue(encode(score())));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    private GenericRecord score() throws OrtException {
        String id = ride.get("ride_id").toString();
        prediction.put("prediction_id", predictionId(id));
        prediction.put("subject_id", id);
        prediction.put("value", model.predict(ride));
        prediction.put("predicted_at", System.currentTimeMillis());
        return prediction;
    }

    /** The same for the same subject, model and version. */
    private String predictionId(String subject) {
        return UUID.nameUUIDFromBytes((subject + idSuffix).getBytes(StandardCharsets.UTF_8)).toString();
    }

    private byte[] encode(GenericRecord record) throws IOException {
        bytes.reset();
        output.writeByte(0);
        output.writeInt(schemaId);
        encoder = EncoderFactory.get().binaryEncoder(bytes, encoder);
        writer.write(record, encoder);
        encoder.flush();
        return bytes.toByteArray();
    }

    @Override
    public void close() {
        model.close();
    }

    private static Schema schema(String file) {
        try (InputStream text = RideScorer.class.getResourceAsStream("/" + file)) {
            return new Schema.Parser().parse(text);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
