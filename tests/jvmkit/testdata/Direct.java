import java.nio.ByteBuffer;

// Direct holds MB megabytes in direct buffers and THREADS sleeping threads.
public class Direct {
    static ByteBuffer[] held;

    public static void main(String[] args) throws Exception {
        held = new ByteBuffer[Integer.parseInt(args[0])];
        for (int i = 0; i < held.length; i++) {
            held[i] = ByteBuffer.allocateDirect(1 << 20);
            for (int at = 0; at < 1 << 20; at += 4096) held[i].put(at, (byte) 1);
        }
        for (int i = 0; i < Integer.parseInt(args[1]); i++) {
            new Thread(() -> { try { Thread.sleep(600_000); } catch (InterruptedException e) { } }).start();
        }
        System.out.println("ready");
        Thread.sleep(600_000);
    }
}
