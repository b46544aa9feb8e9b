/* >> streams: writing, flow control, write_all, and time limits of what waits. */
#include "protocols_fixture.h"

static char large[100000];

static char block[1 << 20];

/* In a task `a` and `b` are joined; the clock jumps although descriptors are waited for. */
#define WITH_PAIR(name)                                                                            \
    static void with_pair_##name(void);                                                            \
    static int64_t main_of_##name(casync_loop *where, void *arg) {                                 \
        (void)where, (void)arg;                                                                    \
        with_pair_##name();                                                                        \
        return 0;                                                                                  \
    }                                                                                              \
    TEST(name) {                                                                                   \
        open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);                                                    \
        EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);                                       \
        EQ(run_task(main_of_##name, NULL), 0);                                                     \
        casync_abort(&a);                                                                          \
        casync_close(&a);                                                                          \
        casync_close(&b);                                                                          \
        close_loop();                                                                              \
    }                                                                                              \
    static void with_pair_##name(void)

/* >> writing ---------------------------------------------------------------------------------- */

TEST(write_tries_the_socket_at_once) {
    open_with_peer(NULL, NULL);
    EQ(write_text(&a, "hello"), 5);
    EQ(a.out.size, 0);
    peer_hears("hello");
    EQ(casync_write(&a, NULL, 0), 0);
    close_with_peer();
}

TEST(bytes_that_are_nowhere_are_refused_and_the_stream_goes_on) {
    casync_framing framing = ZERO;
    casync_span spans[2];
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 2;
    spans[0].ptr = "x";
    spans[0].len = 1;
    spans[1].ptr = NULL;
    spans[1].len = 1;
    open_with_peer(NULL, NULL);
    EQ(casync_write(&a, NULL, 5), -EINVAL);
    EQ(casync_writev(&a, spans, 2), -EINVAL);
    EQ(casync_try_write(&a, NULL, 5), -EINVAL);
    EQ(casync_write_ref(&a, NULL, 5, NULL, NULL), -EINVAL);
    EQ(casync_write_ref(&a, NULL, CASYNC_REFERENCE_MIN, NULL, NULL), -EINVAL);
    EQ(casync_write_frame(&a, &framing, NULL, 5), -EINVAL);
    EQ(casync_send_fd(&a, 0, NULL, 5), -EINVAL);
    EQ(casync_send_fd_frame(&a, 0, &framing, NULL, 5), -EINVAL);
    EQ(casync_write_ref(NULL, large, sizeof large, NULL, NULL), CASYNC_INVALID_STATE);
    EQ(write_text(&a, "on"), 2);
    peer_hears("on");
    close_with_peer();
}

TEST(writev_joins_spans) {
    casync_span spans[3];
    spans[0].ptr = "one ";
    spans[0].len = 4;
    spans[1].ptr = NULL;
    spans[1].len = 0;
    spans[2].ptr = "two";
    spans[2].len = 3;
    open_with_peer(NULL, NULL);
    EQ(casync_writev(&a, spans, 3), 7);
    peer_hears("one two");
    EQ(casync_writev(&a, spans, 0), 0);
    close_with_peer();
}

TEST(writev_takes_more_spans_than_the_kernel_does) {
    static casync_span spans[3000];
    static char many[3001], heard[3001];
    size_t i;
    for (i = 0; i < 3000; i++) {
        many[i] = (char)('a' + i % 26);
        spans[i].ptr = &many[i];
        spans[i].len = 1;
    }
    open_with_peer(NULL, NULL);
    EQ(casync_writev(&a, spans, 3000), 3000);
    for (i = 0; i < 3000;) {
        ssize_t n = read(peer, heard + i, sizeof heard - i);
        if (n > 0)
            i += (size_t)n;
        else
            turn();
    }
    STR_EQ(heard, many);
    close_with_peer();
}

TEST(what_the_socket_does_not_take_is_queued_and_sent_later) {
    int64_t written, heard = 0;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    written = fill(&a);
    EXPECT(a.out.size > 0);
    while (heard < written) {
        heard += drain_descriptor(peer);
        turn();
    }
    EQ(heard, written);
    EQ(a.out.size, 0);
    close_with_peer();
}

TEST(try_write_queues_nothing) {
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_try_write(&a, "hello", 5), 5);
    peer_hears("hello");
    fill(&a);
    EQ(casync_try_write(&a, "hello", 5), -EAGAIN);
    {
        size_t queued = a.out.size;
        EQ(casync_try_write(&a, "hello", 5), -EAGAIN);
        EQ(a.out.size, queued);
    }
    close_losing();
}

TEST(a_reference_is_released_when_it_is_sent) {
    open_with_peer(NULL, NULL);
    EQ(casync_write_ref(&a, "small", 5, release_says, WORD("released")), 5);
    SAID("released");
    peer_hears("small");
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("released")), sizeof large);
    SAID("");
    while (said_size == 0) {
        drain_descriptor(peer);
        turn();
    }
    SAID("released");
    close_with_peer();
}

TEST(a_reference_is_released_once_by_close_abort_and_errors) {
    casync_span more;
    more.ptr = "x";
    more.len = 1;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("closed")), sizeof large);
    EQ(casync_writev(&a, &more, 1), 1);
    casync_close(&a);
    SAID("closed exception=-103");
    close_with_peer();

    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("aborted")), sizeof large);
    EQ(casync_abort(&a), 0);
    turns(3);
    SAID("aborted");
    close_with_peer();

    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("broken")), sizeof large);
    SAID("pause");
    close(peer);
    turns(5);
    EXPECT(strcmp(said, "broken lost=-32") == 0 || strcmp(said, "broken lost=-104") == 0);
    said_size = 0;
    said[0] = 0;
    peer = dup(0);
    close_with_peer();
}

TEST(a_write_that_fails_does_not_release) {
    open_with_peer(NULL, NULL);
    casync_close(&a);
    EQ(casync_write_ref(&a, large, sizeof large, never, NULL), CASYNC_INVALID_STATE);
    EQ(casync_write_ref(&a, "small", 5, never, NULL), CASYNC_INVALID_STATE);
    close_with_peer();
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fill(&a);
    fail_allocation(1, 0);
    EQ(casync_write_ref(&a, large, sizeof large, never, NULL), -ENOMEM);
    fail_no_allocation();
    close_losing();
}

TEST(without_memory_a_write_takes_what_the_socket_took) {
    int64_t taken;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fail_allocation(1, 0);
    taken = casync_write(&a, large, sizeof large);
    EXPECT(taken > 0 && taken < (int64_t)sizeof large);
    EQ(a.out.size, 0);
    EQ(casync_write(&a, large, sizeof large), -ENOMEM);
    fail_no_allocation();
    EQ(drain_descriptor(peer), taken);
    EXPECT(casync_stream_is_open(&a));
    EQ(write_text(&a, "fine"), 4);
    peer_hears("fine");
    close_with_peer();
}

/* >> flow control ----------------------------------------------------------------------------- */

TEST(water_marks_pause_and_resume_with_hysteresis) {
    protocol = saying_protocol();
    options.high_water = 50000;
    options.low_water = 1000;
    open_with_peer(&protocol, &options);
    squeeze(&a);
    fill(&a);
    while (a.out.size <= 50000) {
        SAID("");
        EQ(casync_write(&a, large, 1000), 1000);
    }
    SAID("pause");
    EQ(casync_write(&a, large, 1000), 1000);
    SAID("");
    while (a.out.size > 1000) {
        SAID("");
        drain_descriptor(peer);
        turn();
    }
    SAID("resume");
    close_with_peer();
}

TEST(the_default_marks_are_asyncios) {
    open_with_peer(NULL, NULL);
    EQ(a.endpoint.high_water, 65536);
    EQ(a.endpoint.low_water, 16384);
    close_with_peer();
}

TEST(zero_limits_pause_at_the_first_queued_byte) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    EQ(write_text(&a, "sent at once"), 12);
    SAID("");
    fill(&a);
    SAID("pause");
    while (a.out.size > 0) {
        SAID("");
        drain_descriptor(peer);
        turn();
    }
    SAID("resume");
    close_with_peer();
}

TEST(new_limits_take_effect_at_once) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    fill(&a);
    SAID("");
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    SAID("pause");
    EQ(casync_set_write_limits(&a, 1000000, 1000000), 0);
    SAID("resume");
    EQ(casync_set_write_limits(&a, 1, 2), -EINVAL);
    SAID("");
    EQ(a.endpoint.high_water, 1000000);
    close_losing();
}

TEST(a_stream_that_ended_takes_no_limits) {
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(casync_abort(&a), 0);
    EQ(casync_set_write_limits(&a, 2, 1), CASYNC_INVALID_STATE);
    turn();
    SAID("lost=-103");
    close_with_peer();
}

TEST(drain_waits_while_writing_is_paused) {
    casync_op second;
    casync_future *first_future, *second_future;
    open_with_peer(NULL, NULL);
    EQ(result_of(casync_drain_op(&a, &the_op)), 0);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    first_future = casync_drain_op(&a, &the_op);
    second_future = casync_drain_op(&a, &second);
    turns(3);
    EXPECT(!casync_future_done(first_future));
    EXPECT(!casync_future_done(second_future));
    while (!casync_future_done(first_future)) {
        drain_descriptor(peer);
        turn();
    }
    EQ(result_of(first_future), 0);
    EQ(result_of(second_future), 0);
    close_with_peer();
}

TEST(a_cancelled_drain_changes_nothing_for_others) {
    casync_op second;
    casync_future *first_future, *second_future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    first_future = casync_drain_op(&a, &the_op);
    second_future = casync_drain_op(&a, &second);
    EQ(casync_future_cancel(first_future), 1);
    while (!casync_future_done(second_future)) {
        drain_descriptor(peer);
        turn();
    }
    EQ(result_of(second_future), 0);
    EQ(result_of(first_future), -ECANCELED);
    close_with_peer();
}

/* >> bulk: every byte arrives, in order, however the kernel cuts ------------------------------ */

static uint64_t sent_place, heard_place, total_bytes;

static uint8_t byte_at(uint64_t place) { return (uint8_t)((place * 2654435761u) >> 13); }

static void check_bulk(casync_stream *stream, casync_span data) {
    const uint8_t *bytes = (const uint8_t *)data.ptr;
    size_t i;
    for (i = 0; i < data.len; i++)
        if (bytes[i] != byte_at(heard_place + i)) EQ(bytes[i], byte_at(heard_place + i));
    heard_place += data.len;
    if (random_below(50) == 0) {
        EQ(casync_pause_reading(stream), 0);
        EQ(casync_resume_reading(stream), 0);
    }
}

static bool may_send;

static void bulk_pause(casync_stream *stream) {
    (void)stream;
    may_send = false;
}

static void bulk_resume(casync_stream *stream) {
    (void)stream;
    may_send = true;
}

static void send_bulk(casync_stream *stream) {
    while (may_send && sent_place < total_bytes) {
        static uint8_t data[40000];
        size_t size = 1 + (size_t)random_below(random_below(4) ? 2000 : sizeof data), i;
        for (i = 0; i < size; i++) data[i] = byte_at(sent_place + i);
        sent_place += size;
        if (random_below(2)) {
            EQ(casync_write(stream, data, size), size);
        } else {
            void *copy = malloc(size);
            memcpy(copy, data, size);
            EQ(casync_write_ref(stream, copy, size, free, copy), size);
        }
    }
}

static void exchange_bulk(casync_stream *from) {
    total_bytes = test_quick ? 300000 : 5000000;
    sent_place = heard_place = 0;
    may_send = true;
    do {
        send_bulk(from);
        EQ(casync_run_nowait(&loop), 0);
    } while (heard_place < sent_place || sent_place < total_bytes);
    EQ(heard_place, sent_place);
}

static casync_protocol bulk_protocol(void) {
    casync_protocol bulk = no_protocol();
    bulk.data_received = check_bulk;
    bulk.pause_writing = bulk_pause;
    bulk.resume_writing = bulk_resume;
    return bulk;
}

TEST(bulk_over_a_squeezed_pair) {
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, &protocol, NULL), 0);
    squeeze(&a);
    squeeze(&b);
    exchange_bulk(&a);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(bulk_over_a_pipe) {
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, &protocol, NULL), 0);
    exchange_bulk(&b);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

TEST(bulk_through_filters) {
    xor_filter one, two;
    protocol = bulk_protocol();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, &protocol, NULL), 0);
    set_xor_filter(&a, &one);
    set_xor_filter(&b, &two);
    test_quick = true; /* the filter sends byte by byte */
    exchange_bulk(&a);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

/* >> write_all -------------------------------------------------------------------------------- */

static size_t most_queued;
static int64_t reads_all(casync_loop *where, void *arg) {
    static char bytes[65536];
    int64_t n, total = 0;
    (void)where, (void)arg;
    while ((n = casync_read(&b, bytes, sizeof bytes)) > 0) {
        int64_t i;
        for (i = 0; i < n; i++) EQ((uint8_t)bytes[i], (uint8_t)((total + i) * 7 / 3));
        total += n;
        if (a.out.size > most_queued) most_queued = a.out.size;
    }
    return n < 0 ? n : total;
}
static void fill_block(void) {
    size_t i;
    for (i = 0; i < sizeof block; i++) block[i] = (char)(i * 7 / 3);
}

WITH_PAIR(write_all_sends_everything) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write_all(&a, block, sizeof block), sizeof block);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

WITH_PAIR(write_all_queues_little_at_a_time) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_set_write_limits(&a, 10000, 5000), 0);
    EQ(casync_write_all(&a, block, sizeof block), sizeof block);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
    EXPECT(most_queued <= 65536);
}

WITH_PAIR(write_all_waits_for_what_was_queued_before) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write(&a, block, sizeof block - 5), sizeof block - 5);
    EXPECT(a.out.size > 0);
    EQ(casync_write_all(&a, block + sizeof block - 5, 5), 5);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

/* The library may not touch what a callback gave back to its owner, who uses it for something. */
static bool is_untouched(const void *object, size_t size) {
    const uint8_t *bytes = (const uint8_t *)object;
    size_t i;
    for (i = 0; i < size && bytes[i] == 0xa5; i++) continue;
    return i == size;
}

static casync_op given_up;
static int pauses_left;

static void gives_up_at_a_pause(casync_stream *stream) {
    (void)stream;
    if (--pauses_left != 0) return;
    casync_future_close(&given_up.future);
    memset(&given_up, 0xa5, sizeof given_up);
}

TEST(pause_writing_may_end_the_write_all_whose_piece_it_pauses) {
    static char heard[65536];
    protocol.pause_writing = gives_up_at_a_pause;
    open_with_peer(&protocol, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    pauses_left = 2;
    EXPECT(!casync_future_done(casync_write_all_op(&a, &given_up, block, sizeof block)));
    while (pauses_left > 0) {
        EXPECT(read(peer, heard, sizeof heard) != 0);
        turn();
    }
    EXPECT(is_untouched(&given_up, sizeof given_up));
    close_losing();
}

static casync_stream passing;

static void closes_at_a_pause(casync_stream *stream) {
    if (--pauses_left != 0) return;
    casync_close_reset(stream);
    memset(stream, 0xa5, sizeof *stream);
}

TEST(pause_writing_may_close_the_stream_that_passes_a_descriptor) {
    static casync_op op;
    int64_t passed = 0;
    protocol.pause_writing = closes_at_a_pause;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &passing, &b, &protocol, NULL), 0);
    EQ(casync_set_write_limits(&passing, 0, 0), 0);
    EXPECT(!casync_future_done(casync_write_all_op(&passing, &op, block, sizeof block)));
    pauses_left = 1;
    while (pauses_left > 0) passed = casync_send_fd(&passing, 0, "x", 1);
    EQ(passed, -ECONNABORTED);
    EXPECT(is_untouched(&passing, sizeof passing));
    EQ(casync_future_result(&op.future), -ECONNABORTED);
    casync_close(&b);
    close_loop();
}

WITH_PAIR(write_all_of_nothing_waits_too) {
    casync_task *reader = spawn(reads_all, NULL);
    fill_block();
    EQ(casync_write_all(&a, NULL, 0), 0);
    EQ(casync_write(&a, block, sizeof block), sizeof block);
    EQ(casync_write_all(&a, NULL, 0), 0);
    EQ(a.out.size, 0);
    EQ(casync_finish(&a), 0);
    EQ(casync_join(reader), sizeof block);
}

static int64_t writes_all(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_write_all(&a, block, sizeof block);
}
WITH_PAIR(a_cancelled_write_all_still_sends_what_was_queued) {
    casync_task *writer = spawn(writes_all, NULL), *reader;
    fill_block();
    EQ(casync_sleep(0), 0);
    EXPECT(a.out.size > 0);
    EQ(casync_task_cancel(writer), 1);
    EQ(casync_join(writer), -ECANCELED);
    reader = spawn(reads_all, NULL);
    EQ(casync_finish(&a), 0);
    EXPECT(casync_join(reader) > 0);
}

WITH_PAIR(write_all_hears_of_an_error) {
    casync_task *writer = spawn(writes_all, NULL);
    EQ(casync_sleep(0), 0);
    casync_close(&b);
    EQ(casync_join(writer), -EPIPE);
}

WITH_PAIR(write_all_hears_of_an_abort) {
    casync_task *writer = spawn(writes_all, NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_abort(&a), 0);
    EQ(casync_join(writer), -ECONNABORTED);
    EXPECT(casync_write_all(&a, "x", 1) < 0);
}

/* >> time limits ------------------------------------------------------------------------------ */

static casync_server server;
static casync_listen_desc listen_desc;
static casync_framing framing;
static const void *data;

static int64_t begun;
static void begin(void) { begun = casync_time(&loop); }
static void expect_second(void) { EQ(casync_time(&loop) - begun, CASYNC_SECONDS(1)); }

WITH_PAIR(write_all_has_a_time_limit) {
    begin();
    EQ(casync_write_all_timeout(&a, block, sizeof block, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(casync_stream_is_open(&a));
}
WITH_PAIR(write_all_in_time_gives_the_size) {
    EQ(casync_write_all_timeout(&a, "hello", 5, CASYNC_SECONDS(1)), 5);
    EQ(casync_read(&b, text, sizeof text), 5);
    MEM_EQ(text, "hello", 5);
}

WITH_PAIR(a_drain_has_a_time_limit) {
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    begin();
    EQ(casync_drain_timeout(&a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(casync_stream_is_open(&a));
    while (a.out.size > 0) EXPECT(casync_read(&b, block, sizeof block) > 0);
    EQ(casync_drain_timeout(&a, CASYNC_SECONDS(1)), 0);
}

WITH_PAIR(a_finish_has_a_time_limit) {
    fill(&a);
    begin();
    EQ(casync_finish_timeout(&a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(!casync_stream_is_open(&a));
}
WITH_PAIR(a_finish_in_time_is_zero) {
    EQ(write_text(&a, "hello"), 5);
    EQ(casync_finish_timeout(&a, CASYNC_SECONDS(1)), 0);
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_read(&b, text, sizeof text), 5);
    EQ(casync_read(&b, text, sizeof text), 0);
}

static void frame_by_length(void) {
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 4;
}
WITH_PAIR(reads_have_a_time_limit) {
    frame_by_length();
    begin();
    EQ(casync_read_timeout(&a, text, 1, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EQ(write_text(&b, "he"), 2);
    begin();
    EQ(casync_read_exactly_timeout(&a, text, 5, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    begin();
    EQ(casync_read_until_timeout(&a, "\n", 1, &data, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    begin();
    EQ(write_text(&b, "llo\n"), 4);
    EQ(casync_read_until_timeout(&a, "\n", 1, &data, CASYNC_SECONDS(1)), 6);
    MEM_EQ((const char *)data, "hello\n", 6);
}

WITH_PAIR(read_frame_has_a_time_limit_and_loses_nothing) {
    frame_by_length();
    EQ(casync_write(&b, "\0\0\0\5he", 6), 6);
    begin();
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EQ(write_text(&b, "llo"), 3);
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), 5);
    MEM_EQ((const char *)data, "hello", 5);
}

static int64_t accepts(casync_loop *where, void *arg) {
    casync_connect_desc desc = ZERO;
    casync_address address;
    (void)arg;
    listen_desc.host = desc.host = "127.0.0.1";
    EQ(casync_listen(where, &server, &listen_desc), 0);
    begin();
    EQ(casync_accept_timeout(&server, &a, CASYNC_SECONDS(1)), -ETIMEDOUT);
    expect_second();
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_server_address(&server, &address), 0);
    desc.port = casync_address_port(&address);
    EQ(casync_connect_timeout(where, &b, &desc, CASYNC_FOREVER), 0);
    EQ(casync_accept_timeout(&server, &a, CASYNC_FOREVER), 0);
    EXPECT(casync_stream_is_open(&a));
    EQ(casync_server_wait_clients_timeout(&server, CASYNC_SECONDS(1)),
       0); /* an accepted one is not its own */
    return 0;
}
TEST(an_accept_has_a_time_limit) {
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    EQ(run_task(accepts, NULL), 0);
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
    close_loop();
}

static int64_t expects_the_request_to_be_heard(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    frame_by_length();
    EQ(casync_read_frame_timeout(&a, &framing, &data, CASYNC_SECONDS(1)), -ECANCELED);
    return 0;
}
WITH_PAIR(a_request_to_cancel_is_not_taken_for_the_limit) {
    casync_task *task = spawn(expects_the_request_to_be_heard, NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_join(task), 0);
}
