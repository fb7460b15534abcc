package peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.Map;
import java.util.Set;
import org.apache.avro.generic.GenericRecord;

/** The duration model: from a ride to its minutes. For one thread: the memory of input and output is reused. */
final class DurationModel implements AutoCloseable {
    private static final double MAX_MILES = 100;
    private static final int FEATURES = 6;

    private final OrtSession session;
    private final FloatBuffer row = buffer(FEATURES);
    private final FloatBuffer minutes = buffer(1);
    private final OnnxTensor input;
    private final OnnxTensor output;
    private final Map<String, OnnxTensor> inputs;
    private final Map<String, OnnxValue> outputs;

    /** Predicts by a session of {@link #load}, which any number of these may share and none closes. */
    DurationModel(OrtSession session) throws OrtException {
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        this.session = session;
        input = OnnxTensor.createTensor(environment, row, new long[] {1, FEATURES});
        output = OnnxTensor.createTensor(environment, minutes, new long[] {1, 1});
        inputs = Map.of(session.getInputNames().iterator().next(), input);
        outputs = Map.of(session.getOutputNames().iterator().next(), output);
    }

    /** Loads {@code model.onnx}, to be computed on the thread that asks. */
    static OrtSession load(Path file) throws OrtException {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1);
            return OrtEnvironment.getEnvironment().createSession(file.toString(), options);
        }
    }

    /** Predicts one ride, in minutes. */
    double predict(GenericRecord ride) throws OrtException {
        fill(ride);
        session.run(inputs, Set.of(), outputs).close();
        return minutes.get(0);
    }

    /** Writes the features, in the order of {@code consumers/duration/features.py}, to the input tensor's memory. */
    private void fill(GenericRecord ride) {
        int pickup = (Integer) ride.get("pickup_zone");
        int dropoff = (Integer) ride.get("dropoff_zone");
        long millis = (Long) ride.get("pickup_at");
        LocalDateTime pickupAt = LocalDateTime.ofEpochSecond(Math.floorDiv(millis, 1000L), 0, ZoneOffset.UTC);
        row.put(0, pickup);
        row.put(1, dropoff);
        row.put(2, pickup == dropoff ? 1 : 0);
        row.put(3, miles((Double) ride.get("trip_distance")));
        row.put(4, pickupAt.getHour());
        row.put(5, pickupAt.getDayOfWeek().getValue() - 1);
    }

    private static float miles(Double distance) {
        return distance == null || distance <= 0 || distance > MAX_MILES ? Float.NaN : distance.floatValue();
    }

    private static FloatBuffer buffer(int floats) {
        return ByteBuffer.allocateDirect(floats * Float.BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    @Override
    public void close() {
        input.close();
        output.close();
    }
}
