import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * Prints a job's stats file. Upload it with your S3 client under a unique key (UUID.randomUUID(); the
 * process id is 1 in each container), or:
 * java WriteStats.java | aws s3 cp - "s3://$BUCKET/stats/$JOB/$(od -An -N8 -tx1 /dev/urandom | tr -d ' ').json"
 */
public class WriteStats {
    public static void main(String[] arguments) {
        Map<String, Number> stats = new LinkedHashMap<>();
        stats.put("rows.read", 1231);
        stats.put("seconds", 4.2);
        System.out.println(toJson(Instant.now().getEpochSecond(), stats));
    }

    /** The names have only letters, digits, _ and dots, so nothing needs escaping. */
    static String toJson(long timestamp, Map<String, Number> stats) {
        return stats.entrySet().stream()
                .map(stat -> String.format(Locale.ROOT, "\"%s\": %s", stat.getKey(), toJson(stat.getValue())))
                .collect(Collectors.joining(", ", "{\"timestamp\": " + timestamp + ", ", "}"));
    }

    static String toJson(Number value) {
        if (!Double.isFinite(value.doubleValue())) {
            return "null"; // NaN isn't JSON; null leaves the metric out
        }
        return value.toString();
    }
}
