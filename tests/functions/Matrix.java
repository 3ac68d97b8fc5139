import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** What the tests of Java runtimes ask: an answer, an error, and how many run in one environment at once. */
public class Matrix implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    private static final CountDownLatch TOGETHER = new CountDownLatch(2);

    @Override
    public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
        String ask = String.valueOf(event.get("do"));
        if (ask.equals("fail")) {
            throw new IllegalStateException("asked to");
        }
        boolean met = false;
        if (ask.equals("meet")) {
            TOGETHER.countDown();
            try {
                met = TOGETHER.await(20, TimeUnit.SECONDS);
            } catch (InterruptedException exc) {
                throw new IllegalStateException(exc);
            }
        }
        return Map.of(
                "event", event,
                "function", context.getFunctionName(),
                "request", context.getAwsRequestId(),
                "variable", String.valueOf(System.getenv("COLOUR")),
                "met", met);
    }
}
