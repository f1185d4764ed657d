// Collect holds MB megabytes of small objects and collects garbage, all of it,
// over and over.
public class Collect {
    static Object[] held;

    public static void main(String[] args) throws Exception {
        held = new Object[Integer.parseInt(args[0]) * 1024];
        for (int i = 0; i < held.length; i++) held[i] = new byte[1000];
        System.out.println("ready");
        for (;;) System.gc();
    }
}
