import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * A job's stats file, from Java, on standard output. Upload it with your S3 client under a key of its
 * own (UUID.randomUUID(); the process's number is 1 in each container), or:
 * java WriteStats.java | aws s3 cp - "s3://$BUCKET/stats/$JOB/$(od -An -N8 -tx1 /dev/urandom | tr -d ' ').json"
 */
public class WriteStats {
    public static void main(String[] arguments) {
        Map<String, Number> stats = new LinkedHashMap<>();
        stats.put("rows.read", 1231);
        stats.put("seconds", 4.2);
        System.out.println(toJson(Instant.now().getEpochSecond(), stats));
    }

    /** The names are your own: letters, digits, _ and dots, so there is nothing to escape. */
    static String toJson(long timestamp, Map<String, Number> stats) {
        return stats.entrySet().stream()
                .map(stat -> String.format(Locale.ROOT, "\"%s\": %s", stat.getKey(), toJson(stat.getValue())))
                .collect(Collectors.joining(", ", "{\"timestamp\": " + timestamp + ", ", "}"));
    }

    static String toJson(Number value) {
        if (!Double.isFinite(value.doubleValue())) {
            return "null"; // NaN is no JSON; the metric is left out
        }
        return value.toString();
    }
}
