import java.util.ArrayList;
import java.util.List;

/** Grows until its memory limit stops it, in a method that jstack must show. */
public class Held {
    static final List<byte[]> KEEP = new ArrayList<>();

    static void innermost() {
        while (true) {
            KEEP.add(new byte[1 << 20]);
        }
    }

    public static void main(String[] args) throws Exception {
        Thread sleeper = new Thread(Held::sleep, "known-thread");
        sleeper.setDaemon(true);
        sleeper.start();
        System.in.read();
        System.out.println("{}");
        System.out.flush();
        innermost();
    }

    static void sleep() {
        try {
            Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
