// Leak holds MB megabytes in nodes of 16 KiB, says so, and goes on leaking at
// RATE megabytes a second; 0 stops.
public class Leak {
    static final class Node {
        final byte[] page = new byte[16 << 10];
        final Node next;
        Node(Node next) { this.next = next; }
    }

    static Node head;

    public static void main(String[] args) throws Exception {
        int mb = Integer.parseInt(args[0]);
        int rate = Integer.parseInt(args[1]);
        for (int i = 0; i < mb * 64; i++) head = new Node(head);
        System.out.println("ready");
        for (;;) {
            for (int i = 0; i < rate * 64 / 20; i++) head = new Node(head);
            Thread.sleep(50);
        }
    }
}
