/* >> streams: frames of a fixed size, with a delimiter, or with their length in front. */
#include "protocols_fixture.h"

static casync_framing framing;

static void open_framed(int kind, size_t size, const char *delimiter) {
    framing.kind = kind;
    framing.size = size;
    framing.delimiter = delimiter;
    options.framing = &framing;
    protocol = saying_protocol();
    open_with_peer(&protocol, &options);
}

TEST(fixed_frames) {
    open_framed(CASYNC_FRAMING_FIXED, 3, NULL);
    peer_says("abcdefg");
    run_until_said("abc def");
    say_byte_by_byte("hijk");
    run_until_said("ghi");
    close_with_peer();
}

TEST(delimited_frames) {
    open_framed(CASYNC_FRAMING_DELIMITER, 2, "\r\n");
    peer_says("one\r\ntwo\r\n\r\nth");
    run_until_said("one\r\n two\r\n \r\n");
    say_byte_by_byte("ree\r\n");
    run_until_said("three\r\n");
    say_byte_by_byte("a\rb\r\r\nc");
    run_until_said("a\rb\r\r\n");
    close_with_peer();
}

TEST(length_frames) {
    open_framed(CASYNC_FRAMING_LENGTH, 1, NULL);
    peer_says("\3abc\1d\5ef");
    run_until_said("abc d");
    say_byte_by_byte("ghi\2jk");
    run_until_said("efghi jk");
    close_with_peer();
}

static int64_t frames_seen, frame_bytes;

static void check_frame(casync_stream *stream, casync_span data) {
    const unsigned char *bytes = (const unsigned char *)data.ptr;
    size_t i;
    (void)stream;
    for (i = 0; i < data.len; i++) EQ(bytes[i], (frames_seen + (int64_t)i) & 255);
    frame_bytes += (int64_t)data.len;
    frames_seen++;
}

static void exchange_frames(size_t prefix, bool little_endian) {
    static unsigned char data[70000];
    int64_t sent = 0, sent_bytes = 0;
    size_t i;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = prefix;
    framing.little_endian = little_endian;
    options.framing = &framing;
    options.read_limit = 70000;
    protocol = saying_protocol();
    protocol.data_received = check_frame;
    frames_seen = frame_bytes = 0;
    EQ(casync_socketpair(&loop, &a, &b, &protocol, &options), 0);
    squeeze(&a);
    while (sent < 300) {
        size_t size = (size_t)random_below(prefix == 1 ? 256 : random_below(10) ? 1000 : 65536);
        for (i = 0; i < size; i++) data[i] = (unsigned char)((uint64_t)sent + i);
        EQ(casync_write_frame(&a, &framing, data, size), size);
        sent++;
        sent_bytes += (int64_t)size;
        if (random_below(3) == 0) turn();
        said_size = 0; /* pause and resume */
        said[0] = 0;
    }
    while (frames_seen < sent) EQ(casync_run_once(&loop), 0);
    EQ(frame_bytes, sent_bytes);
    said_size = 0;
    said[0] = 0;
    casync_close(&a);
    casync_close(&b);
}

TEST(write_frame_puts_the_prefix_that_length_framing_reads) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    exchange_frames(1, false);
    exchange_frames(2, false);
    exchange_frames(2, true);
    exchange_frames(4, false);
    exchange_frames(4, true);
    exchange_frames(8, false);
    exchange_frames(8, true);
    close_loop();
}

TEST(the_prefix_is_in_network_order_unless_asked_otherwise) {
    open_with_peer(NULL, NULL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 4;
    EQ(casync_write_frame(&a, &framing, "abc", 3), 3);
    {
        char raw[8];
        EQ(read(peer, raw, sizeof raw), 7);
        MEM_EQ(raw, "\0\0\0\3abc", 7);
        framing.little_endian = true;
        EQ(casync_write_frame(&a, &framing, "abc", 3), 3);
        EQ(read(peer, raw, sizeof raw), 7);
        MEM_EQ(raw, "\3\0\0\0abc", 7);
    }
    close_with_peer();
}

TEST(a_frame_that_its_prefix_cannot_hold_is_refused) {
    static char data[65536];
    open_with_peer(NULL, NULL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    EQ(casync_write_frame(&a, &framing, data, 256), -EMSGSIZE);
    framing.size = 2;
    EQ(casync_write_frame(&a, &framing, data, 65536), -EMSGSIZE);
    framing.size = 3;
    EQ(casync_write_frame(&a, &framing, data, 1), -EINVAL);
    framing.kind = CASYNC_FRAMING_FIXED;
    EQ(casync_write_frame(&a, &framing, data, 1), -EINVAL);
    EQ(drain_descriptor(peer), 0);
    close_with_peer();
}

TEST(a_frame_over_the_limit_ends_a_protocols_stream) {
    options.read_limit = 8;
    open_framed(CASYNC_FRAMING_DELIMITER, 1, "\n");
    peer_says("1234567\n");
    run_until_said("1234567\n");
    peer_says("12345678\n");
    run_until_said("lost=-5003");
    close_with_peer();
    open_framed(CASYNC_FRAMING_LENGTH, 1, NULL);
    peer_says("\11");
    run_until_said("lost=-5003");
    close_with_peer();
}

TEST(a_limit_is_noticed_without_a_delimiter_too) {
    options.read_limit = 8;
    open_framed(CASYNC_FRAMING_DELIMITER, 1, "\n");
    say_byte_by_byte("1234567");
    SAID("");
    peer_says("8"); /* whatever comes now, no frame within the limit is possible */
    run_until_said("lost=-5003");
    close_with_peer();
}

TEST(a_length_that_no_memory_could_hold_is_over_every_limit) {
    options.read_limit = SIZE_MAX;
    open_framed(CASYNC_FRAMING_LENGTH, 8, NULL);
    EQ(write(peer, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), 8);
    run_until_said("lost=-5003");
    close_with_peer();
}
