/* >> streams: operations that read, and how long the bytes they give stay. */
#include "protocols_fixture.h"

static casync_framing framing;

/* >> reading ---------------------------------------------------------------------------------- */

TEST(read_gives_what_there_is) {
    open_with_peer(NULL, NULL);
    peer_says("hello");
    EQ(result_of(read_op()), 5);
    STR_EQ(text, "hello");
    peer_says("abcdef");
    EQ(result_of(casync_read_op(&a, &the_op, text, 2)), 2);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "cdef");
    close_with_peer();
}

TEST(read_waits_for_the_first_byte) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    turns(3);
    EXPECT(!casync_future_done(future));
    peer_says("late");
    EQ(result_of(future), 4);
    STR_EQ(text, "late");
    close_with_peer();
}

TEST(read_is_zero_at_the_end_again_and_again) {
    open_with_peer(NULL, NULL);
    peer_says("last");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(read_op()), 4);
    EQ(result_of(read_op()), 0);
    EQ(result_of(read_op()), 0);
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    close_with_peer();
}

TEST(one_read_at_a_time) {
    casync_op second;
    casync_future *first;
    open_with_peer(NULL, NULL);
    first = read_op();
    EQ(result_of(casync_read_op(&a, &second, text, 1)), -EBUSY);
    EQ(result_of(casync_read_until_op(&a, &second, "\n", 1)), -EBUSY);
    peer_says("mine");
    EQ(result_of(first), 4);
    close_with_peer();
}

TEST(bad_reads_are_refused) {
    static char delimiter[65];
    open_with_peer(NULL, NULL);
    EQ(result_of(casync_read_op(&a, &the_op, NULL, 5)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, "", 0)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, NULL, 1)), -EINVAL);
    EQ(result_of(casync_read_until_op(&a, &the_op, delimiter, 65)), -EINVAL);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 3;
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), -EINVAL);
    peer_says("fine");
    EQ(result_of(read_op()), 4);
    close_with_peer();
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(result_of(read_op()), CASYNC_INVALID_STATE);
    close_with_peer();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(result_of(read_op()), CASYNC_INVALID_STATE);
    close_loop();
}

TEST(read_exactly_gathers_pieces) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    memset(text, 0, sizeof text);
    future = casync_read_exactly_op(&a, &the_op, text, 6);
    say_byte_by_byte("abcde");
    EXPECT(!casync_future_done(future));
    peer_says("fgh");
    EQ(result_of(future), 6);
    STR_EQ(text, "abcdef");
    EQ(result_of(read_op()), 2);
    STR_EQ(text, "gh");
    close_with_peer();
}

TEST(read_exactly_tells_an_end_inside_from_one_before) {
    open_with_peer(NULL, NULL);
    peer_says("abc");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 6)), CASYNC_INCOMPLETE_READ);
    EQ(the_op.done, 3);
    MEM_EQ(text, "abc", 3);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 6)), CASYNC_EOF);
    EQ(the_op.done, 0);
    close_with_peer();
}

TEST(read_until_gives_the_line_with_its_delimiter) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    peer_says("one\r\ntwo\r\nrest");
    expect_bytes(casync_read_until_op(&a, &the_op, "\r\n", 2), "one\r\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\r\n", 2), "two\r\n");
    EQ(result_of(casync_read_op(&a, &the_op, text, 2)), 2);
    MEM_EQ(text, "re", 2);
    future = casync_read_until_op(&a, &the_op, "\r\n", 2);
    say_byte_by_byte("\r\r\n");
    expect_bytes(future, "st\r\r\n");
    close_with_peer();
}

TEST(read_until_tells_an_end_inside_from_one_before) {
    open_with_peer(NULL, NULL);
    peer_says("line\npart");
    EQ(shutdown(peer, SHUT_WR), 0);
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "line\n");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_INCOMPLETE_READ);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "part");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_EOF);
    close_with_peer();
}

TEST(read_until_over_the_limit_leaves_the_bytes) {
    options.read_limit = 4;
    open_with_peer(NULL, &options);
    peer_says("123\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "123\n");
    peer_says("12345\n");
    EQ(result_of(casync_read_until_op(&a, &the_op, "\n", 1)), CASYNC_LIMIT_OVERRUN);
    EQ(result_of(read_op()), 6);
    STR_EQ(text, "12345\n");
    peer_says("67\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "67\n");
    close_with_peer();
}

TEST(read_frame_gives_a_frame) {
    open_with_peer(NULL, NULL);
    peer_says("\3abcdefg\nx");
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "abc");
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 2;
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "de");
    framing.kind = CASYNC_FRAMING_DELIMITER;
    framing.size = 1;
    framing.delimiter = "\n";
    expect_bytes(casync_read_frame_op(&a, &the_op, &framing), "fg\n");
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(casync_read_frame_op(&a, &the_op, &framing)), CASYNC_INCOMPLETE_READ);
    close_with_peer();
}

TEST(a_cancelled_read_takes_nothing) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    EQ(casync_future_cancel(future), 1);
    EQ(result_of(future), -ECANCELED);
    peer_says("kept");
    turns(3);
    EQ(result_of(read_op()), 4);
    STR_EQ(text, "kept");
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("half ");
    turns(3);
    EQ(casync_future_cancel(future), 1);
    casync_future_close(future);
    peer_says("line\n");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "half line\n");
    close_with_peer();
}

TEST(closing_an_operations_future_ends_the_operation) {
    casync_future *future;
    open_with_peer(NULL, NULL);
    future = read_op();
    casync_future_close(future);
    peer_says("kept");
    EQ(result_of(read_op()), 4);
    close_with_peer();
}

TEST(close_fails_what_waits) {
    casync_op drain;
    casync_future *read_future, *drain_future;
    open_with_peer(NULL, NULL);
    squeeze(&a);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    read_future = read_op();
    drain_future = casync_drain_op(&a, &drain);
    EXPECT(!casync_future_done(read_future) && !casync_future_done(drain_future));
    casync_close(&a);
    EQ(result_of(read_future), -ECONNABORTED);
    EQ(result_of(drain_future), -ECONNABORTED);
    SAID("exception=-103");
    close_with_peer();
}

TEST(without_memory_a_read_fails_and_leaks_nothing) {
    int64_t n;
    for (n = 1; n < 6; n++) {
        int64_t result;
        open_with_peer(NULL, NULL);
        peer_says("line\nrest");
        fail_allocation(n, 1);
        result = result_of(casync_read_until_op(&a, &the_op, "\n", 1));
        fail_no_allocation();
        if (result < 0)
            EQ(result, -ENOMEM);
        else
            EQ(result, 5);
        close_with_peer();
    }
}

/* >> reads of nothing ------------------------------------------------------------------------- */

static void expect_reads_of_nothing(int64_t result) {
    EQ(result_of(casync_read_op(&a, &the_op, text, 0)), result);
    EQ(result_of(casync_read_op(&a, &the_op, NULL, 0)), result);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 0)), result);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, NULL, 0)), result);
}

TEST(a_read_of_nothing_is_done_at_once) {
    open_with_peer(NULL, NULL);
    EXPECT(casync_future_done(casync_read_op(&a, &the_op, text, 0)));
    EXPECT(casync_future_done(casync_read_exactly_op(&a, &the_op, NULL, 0)));
    expect_reads_of_nothing(0);
    peer_says("hello");
    expect_reads_of_nothing(0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 5)), 5);
    MEM_EQ(text, "hello", 5);
    EQ(shutdown(peer, SHUT_WR), 0);
    EQ(result_of(read_op()), 0);
    expect_reads_of_nothing(0); /* at the end, too */
    close_with_peer();
}

TEST(a_read_of_nothing_leaves_what_was_read_ahead) {
    open_with_peer(NULL, NULL);
    peer_says("line\nrest");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "line\n");
    expect_reads_of_nothing(0);
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 4)), 4);
    MEM_EQ(text, "rest", 4);
    close_with_peer();
}

TEST(a_read_of_nothing_tells_what_is_wrong_with_the_stream) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_reads_of_nothing(CASYNC_INVALID_STATE);
    close_loop();
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    expect_reads_of_nothing(CASYNC_INVALID_STATE);
    close_with_peer();
    open_with_peer(NULL, NULL);
    EQ(write_text(&a, "unread"), 6);
    close(peer);
    EQ(result_of(read_op()), -ECONNRESET);
    expect_reads_of_nothing(-ECONNRESET);
    peer = dup(0);
    close_with_peer();
}

static int64_t read_nothing(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EQ(casync_read(&a, text, 0), 0);
    EQ(casync_read_exactly(&a, NULL, 0), 0);
    EQ(casync_read_timeout(&a, text, 0, CASYNC_SECONDS(1)), 0);
    EQ(casync_read_exactly_timeout(&a, text, 0, CASYNC_SECONDS(1)), 0);
    return 0;
}

TEST(tasks_read_nothing_too) {
    open_with_peer(NULL, NULL);
    EQ(run_task(read_nothing, NULL), 0);
    close_with_peer();
}

/* >> how long bytes stay ---------------------------------------------------------------------- */

TEST(a_frame_that_was_read_stays_until_the_next_read) {
    casync_filter filter = ZERO;
    casync_future *future;
    filter.received = single_bytes;
    open_with_peer(NULL, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("one\ntwo and much more that needs another piece of memory, and then some\n");
    expect_bytes(future, "one\n");
    expect_bytes(casync_read_until_op(&a, &the_op, " ", 1), "two ");
    close_with_peer();
}

/* Memory that is given back is overwritten, and not used again before the test's end. */
typedef union given_back {
    struct {
        size_t size;
        union given_back *next;
    } block;
    uint64_t align[2];
} given_back;
static given_back *all_given_back;

static void give_back(given_back *block) {
    memset(block + 1, 0xdd, block->block.size);
    block->block.next = all_given_back;
    all_given_back = block;
    memory.live--;
}

static void *spoiling_allocator(void *user, void *ptr, size_t size) {
    given_back *old = (given_back *)ptr, *fresh = NULL;
    (void)user;
    if (size > 0) {
        fresh = (given_back *)malloc(sizeof *fresh + size);
        EXPECT(fresh);
        fresh->block.size = size;
        memory.live++;
    }
    if (old && size > 0)
        memcpy(fresh + 1, old, old[-1].block.size < size ? old[-1].block.size : size);
    if (old) give_back(old - 1);
    return fresh ? fresh + 1 : NULL;
}

static void open_spoiling_with_peer(const casync_protocol *its_protocol,
                                    const casync_stream_options *its_options) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    loop.allocator.function = spoiling_allocator; /* nothing is allocated yet */
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], its_protocol, its_options), 0);
}

static void close_spoiling_with_peer(void) {
    close_with_peer();
    while (all_given_back) {
        given_back *block = all_given_back;
        all_given_back = block->block.next;
        free(block);
    }
}

TEST(a_frame_that_was_read_outlives_a_close) {
    casync_future *future;
    int64_t live;
    open_spoiling_with_peer(NULL, NULL);
    future = casync_read_until_op(&a, &the_op, "\n", 1);
    peer_says("line\nand more");
    run_until_done(future);
    casync_close(&a);
    EQ(casync_future_result(future), 5);
    MEM_EQ(future->ptr, "line\n", 5);
    live = memory.live;
    turns(2);
    EXPECT(memory.live < live); /* but not for ever */
    close_spoiling_with_peer();
}

TEST(a_frame_that_was_read_ends_with_the_loop) {
    open_spoiling_with_peer(NULL, NULL);
    peer_says("line\nand more");
    run_until_done(casync_read_until_op(&a, &the_op, "\n", 1));
    casync_close(&a);
    close_spoiling_with_peer();
}

static void close_in_the_next_turn(void *arg) {
    (void)arg;
    EQ(casync_call_soon(&loop, NULL, close_a, WORD("closed")), 0);
}

static int64_t look_at_line(casync_loop *where, void *arg) {
    const void *line = NULL;
    (void)where, (void)arg;
    EQ(casync_read_until(&a, "\n", 1, &line), 5);
    EXPECT(!casync_stream_is_open(&a));
    MEM_EQ(line, "line\n", 5);
    return 0;
}

/* Between the end of the read and the task's turn. */
TEST(a_task_has_the_frame_that_it_read_although_somebody_closed_the_stream) {
    casync_task *task;
    open_spoiling_with_peer(NULL, NULL);
    task = spawn(look_at_line, NULL);
    turns(2);
    peer_says("line\n");
    EQ(casync_call_soon(&loop, NULL, close_in_the_next_turn, WORD("closed")), 0);
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    SAID("closed");
    close_spoiling_with_peer();
}

static int64_t look_at_frame(casync_loop *where, void *arg) {
    const void *frame = NULL;
    (void)where, (void)arg;
    EQ(casync_read_frame(&a, &framing, &frame), 4);
    EXPECT(!casync_stream_is_open(&a));
    MEM_EQ(frame, "fram", 4);
    return 0;
}

TEST(a_task_has_the_frame_that_it_read_although_somebody_aborted_the_stream) {
    casync_task *task;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 4;
    open_spoiling_with_peer(NULL, NULL);
    task = spawn(look_at_frame, NULL);
    turns(2);
    peer_says("fram");
    EQ(casync_call_soon(&loop, NULL, close_in_the_next_turn, WORD("closed")), 0);
    EQ(casync_run_until_complete(&task->future), 0);
    casync_task_release(task);
    SAID("closed");
    close_spoiling_with_peer();
}

static void close_and_look(casync_stream *stream, casync_span data) {
    casync_close(stream);
    EQ(data.len, 5);
    MEM_EQ(data.ptr, "frame", 5);
    say(WORD("seen"));
}

TEST(the_bytes_of_a_callback_stay_until_it_returns_although_it_closes_the_stream) {
    protocol = no_protocol();
    protocol.data_received = close_and_look;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 5;
    options.framing = &framing;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frameframe");
    run_until_said("seen");
    close_spoiling_with_peer();
    options.framing = NULL;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frame");
    run_until_said("seen");
    close_spoiling_with_peer();
}

static void read_and_look(casync_stream *stream, casync_span data) {
    EQ(casync_set_protocol(stream, NULL), 0);
    EXPECT(!casync_future_done(casync_read_op(stream, &the_op, text, 1)));
    MEM_EQ(data.ptr, "frame", 5);
    say(WORD("seen"));
}

TEST(the_bytes_of_a_callback_stay_until_it_returns_although_it_reads_on) {
    protocol = no_protocol();
    protocol.data_received = read_and_look;
    framing.kind = CASYNC_FRAMING_FIXED;
    framing.size = 5;
    options.framing = &framing;
    open_spoiling_with_peer(&protocol, &options);
    peer_says("frame");
    run_until_said("seen");
    peer_says("x");
    EQ(result_of(&the_op.future), 1);
    close_spoiling_with_peer();
}
