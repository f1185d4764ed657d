// Pulse holds MB megabytes, half of them random, and prints the longest time that its own thread
// was ever kept from running, in milliseconds, whenever that grows.
public class Pulse {
    static Object[] held;

    public static void main(String[] args) throws Exception {
        held = new Object[Integer.parseInt(args[0]) * 64];
        java.util.Random random = new java.util.Random(1);
        byte[] noise = new byte[8 << 10];
        for (int i = 0; i < held.length; i++) {
            byte[] page = new byte[16 << 10];
            random.nextBytes(noise);
            System.arraycopy(noise, 0, page, 0, noise.length);
            held[i] = page;
        }
        System.gc();
        System.out.println("ready");
        long longest = 0, last = System.nanoTime();
        for (;;) {
            Thread.sleep(1);
            long now = System.nanoTime(), gap = (now - last) / 1_000_000;
            last = now;
            if (gap > longest) {
                longest = gap;
                System.out.println("stood " + gap);
            }
        }
    }
}
