/* >> buffers: OutBuf keeps every byte and its order, and releases every reference exactly once. */
#include "loop_fixture.h"

static casync_outbuf out;
static casync_allocator allocator;

static void open_outbuf(void) {
    allocator = test_allocator();
    casync_outbuf_init(&out, &allocator);
}

static void close_outbuf(void) {
    casync_outbuf_clear(&out);
    EQ(out.size, 0);
    EQ(memory.live, 0);
}

static casync_span span_of(const void *data, size_t size) {
    casync_span span;
    span.ptr = data;
    span.len = size;
    return span;
}

static int64_t append(const void *data, size_t size) {
    casync_span span = span_of(data, size);
    return casync_outbuf_append(&out, &span, 1);
}

/* All bytes of the queue, by peek. */
static size_t contents(char *text, size_t room) {
    casync_span spans[64];
    size_t count = casync_outbuf_peek(&out, spans, 64), i, used = 0;
    for (i = 0; i < count; i++) {
        EXPECT(used + spans[i].len <= room);
        memcpy(text + used, spans[i].ptr, spans[i].len);
        used += spans[i].len;
    }
    return used;
}

#define HOLDS(text)                                                                                \
    do {                                                                                           \
        char holds[256] = "";                                                                      \
        EQ(contents(holds, sizeof holds), strlen(text));                                           \
        STR_EQ(holds, text);                                                                       \
        EQ(out.size, strlen(text));                                                                \
    } while (0)

TEST(an_empty_queue_holds_nothing) {
    casync_span span;
    open_outbuf();
    EQ(out.size, 0);
    EQ(casync_outbuf_peek(&out, &span, 1), 0);
    casync_outbuf_consume(&out, 10);
    casync_outbuf_clear(&out);
    EQ(memory.allocations, 0);
    close_outbuf();
}

TEST(init_without_an_allocator_uses_the_default) {
    casync_outbuf_init(&out, NULL);
    EQ(append("abc", 3), 0);
    HOLDS("abc");
    casync_outbuf_clear(&out);
}

TEST(bytes_are_copied_and_joined) {
    char data[4] = "abc";
    casync_span spans[3];
    open_outbuf();
    EQ(append(data, 3), 0);
    memset(data, 'X', sizeof data);
    spans[0] = span_of("de", 2);
    spans[1] = span_of(NULL, 0);
    spans[2] = span_of("f", 1);
    EQ(casync_outbuf_append(&out, spans, 3), 0);
    EQ(casync_outbuf_append(&out, spans, 0), 0);
    HOLDS("abcdef");
    EQ(memory.live, 1); /* small ones share a chunk */
    close_outbuf();
}

TEST(consume_removes_from_the_front) {
    open_outbuf();
    EQ(append("abcdef", 6), 0);
    casync_outbuf_consume(&out, 0);
    HOLDS("abcdef");
    casync_outbuf_consume(&out, 4);
    HOLDS("ef");
    EQ(append("gh", 2), 0);
    HOLDS("efgh");
    casync_outbuf_consume(&out, 100);
    HOLDS("");
    EQ(append("i", 1), 0);
    HOLDS("i");
    close_outbuf();
}

/* >> references ------------------------------------------------------------------------------- */

static char large[3 * CASYNC_REFERENCE_MIN];

TEST(small_references_are_copied_and_released_at_once) {
    char data[] = "abc";
    open_outbuf();
    EQ(casync_outbuf_append_ref(&out, data, 3, say, WORD("released")), 0);
    SAID("released");
    data[0] = 'X';
    HOLDS("abc");
    EQ(casync_outbuf_append_ref(&out, large, CASYNC_REFERENCE_MIN - 1, say, WORD("released")), 0);
    SAID("released");
    EQ(casync_outbuf_append_ref(&out, NULL, 0, say, WORD("released")), 0);
    SAID("released");
    close_outbuf();
}

TEST(large_references_are_released_when_consumed) {
    casync_span spans[4];
    open_outbuf();
    EQ(append("ab", 2), 0);
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, say, WORD("released")), 0);
    EQ(append("cd", 2), 0);
    EQ(out.size, sizeof large + 4);
    EQ(casync_outbuf_peek(&out, spans, 4), 3);
    PTR_EQ(spans[1].ptr, large);
    EQ(spans[1].len, sizeof large);
    casync_outbuf_consume(&out, 2 + sizeof large - 1);
    SAID("");
    casync_outbuf_consume(&out, 1);
    SAID("released");
    HOLDS("cd");
    close_outbuf();
    SAID("");
}

TEST(references_are_released_in_their_order_by_clear) {
    open_outbuf();
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, say, WORD("1")), 0);
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, NULL, NULL), 0);
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, say, WORD("3")), 0);
    casync_outbuf_consume(&out, 1);
    casync_outbuf_clear(&out);
    SAID("1 3");
    casync_outbuf_clear(&out);
    SAID("");
    close_outbuf();
}

static void append_more(void *arg) {
    say(arg);
    EQ(append("more", 4), 0);
}

TEST(a_release_may_append) {
    open_outbuf();
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, append_more, WORD("released")), 0);
    EQ(append("tail-", 5), 0);
    casync_outbuf_consume(&out, sizeof large);
    SAID("released");
    HOLDS("tail-more");
    close_outbuf();
}

static void start_anew(void *arg) {
    say(arg);
    casync_outbuf_clear(&out);
    EQ(append("anew", 4), 0);
}

TEST(a_release_may_clear_the_queue_and_append) {
    open_outbuf();
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, start_anew, WORD("1")), 0);
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, say, WORD("2")), 0);
    EQ(append("tail", 4), 0);
    casync_outbuf_consume(&out, 2 * sizeof large + 1);
    SAID("1 2");
    HOLDS("anew");
    close_outbuf();
}

TEST(peek_gives_as_many_spans_as_there_is_room_for) {
    casync_span spans[2];
    open_outbuf();
    EQ(append("a", 1), 0);
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, NULL, NULL), 0);
    EQ(append("b", 1), 0);
    EQ(casync_outbuf_peek(&out, spans, 0), 0);
    EQ(casync_outbuf_peek(&out, spans, 2), 2);
    EQ(spans[0].len, 1);
    EQ(spans[1].len, sizeof large);
    close_outbuf();
}

TEST(without_memory_append_adds_nothing) {
    casync_span spans[2];
    open_outbuf();
    EQ(append("abc", 3), 0);
    spans[0] = span_of("def", 3); /* fits into the chunk that is there */
    spans[1] = span_of(large, sizeof large);
    fail_allocation(1, 0);
    EQ(casync_outbuf_append(&out, spans, 2), -ENOMEM);
    HOLDS("abc");
    EQ(casync_outbuf_append_ref(&out, large, sizeof large, say, WORD("released")), -ENOMEM);
    SAID("");
    HOLDS("abc");
    casync_outbuf_consume(&out, 3);
    EQ(append("abc", 3), -ENOMEM);
    EQ(casync_outbuf_append_ref(&out, "abc", 3, say, WORD("released")), -ENOMEM);
    SAID("");
    HOLDS("");
    fail_no_allocation();
    close_outbuf();
}

/* >> flush ------------------------------------------------------------------------------------ */

static int ends[2];

TEST(flush_writes_to_sockets_and_others) {
    char text[16] = "";
    int i;
    open_outbuf();
    for (i = 0; i < 2; i++) {
        bool is_socket = i == 1;
        if (is_socket)
            make_socketpair(ends);
        else
            make_pipe(ends);
        EQ(casync_outbuf_flush(&out, ends[1], is_socket), 0);
        EQ(append("hello", 5), 0);
        EQ(casync_outbuf_flush(&out, ends[1], is_socket), 5);
        EQ(out.size, 0);
        EQ(read(ends[0], text, sizeof text), 5);
        STR_EQ(text, "hello");
        close_both(ends);
    }
    close_outbuf();
}

TEST(flush_to_a_full_descriptor_is_again) {
    int i;
    open_outbuf();
    for (i = 0; i < 2; i++) {
        bool is_socket = i == 1;
        if (is_socket)
            make_socketpair(ends);
        else
            make_pipe(ends);
        while (write(ends[1], large, sizeof large) > 0) continue;
        while (write(ends[1], large, 1) > 0) continue;
        EQ(append("hello", 5), 0);
        EQ(casync_outbuf_flush(&out, ends[1], is_socket), -EAGAIN);
        HOLDS("hello");
        casync_outbuf_clear(&out);
        close_both(ends);
    }
    close_outbuf();
}

TEST(flush_to_a_broken_descriptor_is_an_error_and_no_signal) {
    int i;
    open_outbuf();
    signal(SIGPIPE, SIG_DFL);
    for (i = 0; i < 4; i++) { /* the second pipe goes the way the first one found to work */
        bool is_socket = i >= 2;
        if (is_socket)
            make_socketpair(ends);
        else
            make_pipe(ends);
        close(ends[0]);
        EQ(append("hello", 5), 0);
        EQ(casync_outbuf_flush(&out, ends[1], is_socket), -EPIPE);
        HOLDS("hello");
        casync_outbuf_clear(&out);
        close(ends[1]);
    }
    EQ(casync_outbuf_flush(&out, -1, true), 0);
    EQ(append("hello", 5), 0);
    EQ(casync_outbuf_flush(&out, -1, true), -EBADF);
    EQ(casync_outbuf_flush(&out, -1, false), -EBADF);
    close_outbuf();
}

TEST(a_pending_sigpipe_of_the_users_own_stays_pending) {
    sigset_t set, pending;
    open_outbuf();
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    raise(SIGPIPE);
    make_pipe(ends);
    close(ends[0]);
    EQ(append("hello", 5), 0);
    EQ(casync_outbuf_flush(&out, ends[1], false), -EPIPE);
    EQ(sigpending(&pending), 0);
    EQ(sigismember(&pending, SIGPIPE), 1);
    close_outbuf();
}

/* >> against a model: the stream's byte at place n is a function of n -------------------------- */

static uint64_t written, received; /* places of the next byte in and out */
static int64_t references, releases;

static unsigned char byte_at(uint64_t place) {
    return (unsigned char)((place * 2654435761u) >> 13);
}

static unsigned char *next_bytes(size_t size) {
    unsigned char *data = (unsigned char *)malloc(size + 1);
    size_t i;
    for (i = 0; i < size; i++) data[i] = byte_at(written + i);
    return data;
}

static void check_received(const unsigned char *data, size_t size) {
    size_t i;
    for (i = 0; i < size; i++)
        if (data[i] != byte_at(received + i)) EQ(data[i], byte_at(received + i));
    received += size;
}

typedef struct reference {
    unsigned char *data;
    size_t size;
    bool released;
} reference;

/* What is released is overwritten: were it still needed, the receiver would notice. */
static void release_reference(void *arg) {
    reference *r = (reference *)arg;
    EXPECT(!r->released);
    r->released = true;
    memset(r->data, 0xee, r->size);
    free(r->data);
    free(r);
    releases++;
}

static size_t random_size(void) {
    switch (random_below(6)) {
    case 0:
        return random_below(3);
    case 1:
        return random_below(20000);
    case 2:
        return CASYNC_REFERENCE_MIN - 2 + random_below(4);
    default:
        return random_below(300);
    }
}

static void append_random(void) {
    casync_span spans[5];
    unsigned char *pieces[5];
    size_t count = random_below(6), i;
    uint64_t before = written;
    for (i = 0; i < count; i++) {
        size_t size = random_size();
        pieces[i] = next_bytes(size);
        spans[i] = span_of(pieces[i], size);
        written += size;
    }
    if (casync_outbuf_append(&out, spans, count) < 0) written = before;
    for (i = 0; i < count; i++) free(pieces[i]);
}

static void append_reference(void) {
    reference *r = (reference *)calloc(1, sizeof *r);
    r->size = random_size();
    r->data = next_bytes(r->size);
    references++;
    written += r->size;
    if (casync_outbuf_append_ref(&out, r->data, r->size, release_reference, r) == 0) return;
    written -= r->size;
    release_reference(r);
}

static void receive_random(void) {
    static unsigned char buffer[65536];
    size_t room = 1 + random_below(random_below(2) ? 500 : sizeof buffer);
    ssize_t n = read(ends[0], buffer, room);
    if (n > 0)
        check_received(buffer, (size_t)n);
    else
        EQ(errno, EAGAIN);
}

static void peek_and_consume(void) {
    casync_span spans[8];
    size_t count = casync_outbuf_peek(&out, spans, random_below(9)), i, total = 0, take;
    uint64_t before = received;
    for (i = 0; i < count; i++) {
        check_received((const unsigned char *)spans[i].ptr, spans[i].len);
        total += spans[i].len;
    }
    take = random_below(total + 1);
    received = before + take;
    casync_outbuf_consume(&out, take);
}

static int model_rounds(void) { return test_quick ? 2000 : 25000; }

static void run_model(void (*take)(void), uint64_t in_flight_allowed, uint64_t failures) {
    int i;
    for (i = 0; i < model_rounds(); i++) {
        uint64_t queued = out.size;
        if (failures && random_below(failures) == 0) fail_allocation(1, 1);
        if (queued < 100000) {
            if (random_below(3))
                append_random();
            else
                append_reference();
        }
        fail_no_allocation();
        take();
        EXPECT(out.size <= written - received);
        EXPECT(written - received - out.size <= in_flight_allowed);
        if (random_below(1000) == 0) {
            uint64_t dropped = out.size;
            if (in_flight_allowed) continue; /* the other side would miss them */
            casync_outbuf_clear(&out);
            received += dropped;
            EQ(received, written);
            EQ(references, releases);
        }
    }
}

TEST(the_queue_is_byte_exact) {
    open_outbuf();
    run_model(peek_and_consume, 0, 0);
    EXPECT(references > 100);
    close_outbuf();
    EQ(references, releases);
}

TEST(the_queue_is_byte_exact_when_memory_fails_now_and_then) {
    open_outbuf();
    run_model(peek_and_consume, 0, 5);
    close_outbuf();
    EQ(references, releases);
}

static bool flush_to_socket;
static int64_t partial_writes;

static void flush_and_receive(void) {
    if (random_below(2)) {
        size_t before = out.size;
        int64_t result = casync_outbuf_flush(&out, ends[1], flush_to_socket);
        if (result == -EAGAIN)
            EQ(out.size, before);
        else
            EQ(result, before - out.size);
        if (out.size > 0) partial_writes++;
    } else {
        receive_random();
    }
}

static void flush_model(void) {
    open_outbuf();
    run_model(flush_and_receive, 1 << 20, 0);
    EXPECT(partial_writes > model_rounds() / 100);
    while (received < written) {
        int64_t result = casync_outbuf_flush(&out, ends[1], flush_to_socket);
        EXPECT(result >= 0 || result == -EAGAIN);
        receive_random();
    }
    EQ(out.size, 0);
    EQ(references, releases);
    close_outbuf();
    close_both(ends);
}

TEST(partial_writes_to_a_squeezed_socket_are_resumed_exactly) {
    int smallest = 1;
    make_socketpair(ends);
    EQ(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest), 0);
    flush_to_socket = true;
    flush_model();
}

TEST(partial_writes_to_a_small_pipe_are_resumed_exactly) {
    make_pipe(ends);
    EXPECT(fcntl(ends[1], F_SETPIPE_SZ, 4096) > 0);
    flush_model();
}
