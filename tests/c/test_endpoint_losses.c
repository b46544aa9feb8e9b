/* >> endpoint: what a close loses is told, of streams and of datagram sockets. */
#include "endings_fixture.h"

/* >> streams ---------------------------------------------------------------------------------- */

static void open_stream_with_much(void) {
    int fds[2];
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], NULL, NULL), 0);
    write_much(&a, MUCH);
    EXPECT(a.out.size > 0);
}
static void end_stream(void) {
    close(peer);
    turns(3);
    close_loop();
}

TEST(a_close_tells_how_many_bytes_are_lost) {
    size_t unsent;
    open_stream_with_much();
    unsent = a.out.size;
    casync_close(&a);
    SAID("told=-103");
    EQ(told.unsent, unsent);
    PTR_EQ(told.stream, NULL);
    EQ(drain_descriptor(peer) + (int64_t)told.unsent, MUCH);
    casync_close(&a);
    end_stream();
}

TEST(a_close_tells_who_does_not_get_the_bytes) {
    serve_one_by(CASYNC_CLOCK_MONOTONIC, writes_and_sleeps);
    casync_close(served);
    SAID("told=-103");
    STR_EQ(told.peer, client_name);
    EQ(casync_task_cancel(serving), 1);
    EXPECT(client_reads_all() < MUCH);
    end();
}

TEST(a_close_of_a_pipe_tells_too) {
    int fds[2];
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_pipe(fds);
    EQ(casync_stream_open(&loop, &a, fds[1], NULL, NULL), 0);
    write_much(&a, MUCH);
    casync_close(&a);
    SAID("told=-103");
    STR_EQ(told.peer, "");
    EQ(drain_descriptor(fds[0]) + (int64_t)told.unsent, MUCH);
    close(fds[0]);
    close_loop();
}

TEST(a_close_of_what_is_all_sent_tells_nothing) {
    open_stream_with_much();
    while (a.out.size > 0) {
        drain_descriptor(peer);
        turn();
    }
    casync_close(&a);
    end_stream();
}

static int spare[2];
static void open_again(casync_stream *stream) {
    PTR_EQ(stream, NULL);
    when_told = NULL;
    EXPECT(!casync_stream_is_open(&a));
    EQ(casync_stream_open(&loop, &a, spare[0], NULL, NULL), 0);
}
TEST(a_closed_stream_may_be_opened_again_where_its_loss_is_told) {
    open_stream_with_much();
    make_socketpair(spare);
    when_told = open_again;
    casync_close(&a);
    SAID("told=-103");
    EXPECT(casync_stream_is_open(&a));
    EQ(write_text(&a, "again"), 5);
    close(peer);
    peer = spare[1];
    peer_hears("again");
    casync_close(&a);
    end_stream();
}

static casync_stream *on_heap;
static void free_it(casync_stream *stream) {
    PTR_EQ(stream, NULL);
    memset(on_heap, 0xa5, sizeof *on_heap);
    free(on_heap);
}
TEST(a_closed_stream_may_be_freed_where_its_loss_is_told) {
    int fds[2];
    on_heap = (casync_stream *)calloc(1, sizeof *on_heap);
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, on_heap, fds[0], NULL, NULL), 0);
    write_much(on_heap, MUCH);
    when_told = free_it;
    casync_close(on_heap);
    SAID("told=-103");
    end_stream();
}

TEST(releases_come_before_the_loss_is_told) {
    open_stream_with_much();
    EQ(casync_write_ref(&a, block, sizeof block, release_says, WORD("released")), sizeof block);
    casync_close(&a);
    SAID("released told=-103");
    end_stream();
}

TEST(what_waits_is_failed_before_the_loss_is_told) {
    casync_op reading;
    char byte;
    open_stream_with_much();
    (void)casync_read_op(&a, &reading, &byte, 1);
    (void)casync_drain_op(&a, &the_op);
    casync_close(&a);
    SAID("told=-103");
    EQ(result_of(&reading.future), -ECONNABORTED);
    EQ(result_of(&the_op.future), -ECONNABORTED);
    end_stream();
}

TEST(a_close_after_an_abort_tells_nothing) {
    open_stream_with_much();
    EQ(casync_abort(&a), 0);
    casync_close(&a);
    end_stream();
}
TEST(an_abort_tells_nothing) {
    open_stream_with_much();
    EQ(casync_abort(&a), 0);
    end_stream();
    EXPECT(!casync_stream_is_open(&a));
}
TEST(a_reset_tells_nothing) {
    open_stream_with_much();
    casync_close_reset(&a);
    end_stream();
}
TEST(a_close_after_an_error_tells_nothing) {
    open_stream_with_much();
    close(peer);
    EQ(result_of(casync_drain_op(&a, &the_op)) < 0, true);
    casync_close(&a);
    peer = dup(0);
    end_stream();
}

static int64_t finishes_in_time(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EQ(casync_finish_timeout(&a, 1), -ETIMEDOUT);
    EXPECT(!casync_stream_is_open(&a));
    return 0;
}
TEST(a_finish_that_takes_too_long_tells_by_its_error_alone) {
    open_stream_with_much();
    EQ(run_task(finishes_in_time, NULL), 0);
    end_stream();
}

static int64_t finishes(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_finish(&a);
}
static int64_t finishes_with_a_limit(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_finish_timeout(&a, CASYNC_SECONDS(1000000));
}
static void expect_cancelled_finish_to_tell(casync_coroutine coroutine) {
    casync_task *task;
    open_stream_with_much();
    task = spawn(coroutine, NULL);
    turns(2);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_run_until_complete(&task->future), -ECANCELED);
    casync_task_release(task);
    SAID("told=-103");
    EXPECT(told.unsent > 0);
    end_stream();
}
TEST(a_finish_that_is_cancelled_tells_what_is_lost) { expect_cancelled_finish_to_tell(finishes); }
TEST(a_finish_with_a_limit_that_is_cancelled_tells_what_is_lost) {
    expect_cancelled_finish_to_tell(finishes_with_a_limit);
}
TEST(a_finish_operation_that_is_cancelled_tells_what_is_lost) {
    open_stream_with_much();
    (void)casync_finish_op(&a, &the_op);
    EQ(casync_future_cancel(&the_op.future), 1);
    SAID("told=-103");
    end_stream();
}
TEST(a_close_while_finishing_tells_what_is_lost) {
    open_stream_with_much();
    EQ(casync_finish_start(&a), 0);
    casync_close(&a);
    SAID("told=-103");
    end_stream();
}

/* The stream that was limited once is opened again: that it told by an error is forgotten. */
TEST(a_stream_that_is_opened_again_tells_again) {
    open_stream_with_much();
    EQ(run_task(finishes_in_time, NULL), 0);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    write_much(&a, MUCH);
    casync_close(&a);
    SAID("told=-103");
    casync_close(&b);
    end_stream();
}

/* >> datagram sockets ------------------------------------------------------------------------- */

/* Queues datagrams that their receiver, which does not read, has no place for. */
static void open_datagram_with_much(void) {
    casync_datagram_desc desc = ZERO;
    int fds[2], i;
    open_hearing_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    desc.use_fd = true;
    desc.fd = fds[0];
    EQ(casync_datagram_open(&loop, &datagram, &desc), 0);
    for (i = 0; i < 1000 && datagram.queued == 0; i++)
        EQ(casync_datagram_write(&datagram, block, 1000, NULL), 1000);
    EQ(casync_datagram_write(&datagram, block, 1000, NULL), 1000);
    EXPECT(datagram.queued > 0);
}
TEST(a_close_of_datagrams_tells_how_many_bytes_are_lost) {
    open_datagram_with_much();
    casync_datagram_close(&datagram);
    SAID("told=-103");
    EXPECT(told.unsent >= 2000);
    PTR_EQ(told.datagram, NULL);
    casync_datagram_close(&datagram);
    end_stream();
}
static void open_datagram_again(casync_stream *stream) {
    casync_datagram_desc desc = ZERO;
    PTR_EQ(stream, NULL);
    desc.use_fd = true;
    desc.fd = spare[0];
    EQ(casync_datagram_open(&loop, &datagram, &desc), 0);
}
TEST(closed_datagrams_may_be_opened_again_where_the_loss_is_told) {
    open_datagram_with_much();
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, spare), 0);
    when_told = open_datagram_again;
    casync_datagram_close(&datagram);
    SAID("told=-103");
    EXPECT(casync_datagram_is_open(&datagram));
    casync_datagram_close(&datagram);
    close(spare[1]);
    end_stream();
}
TEST(an_abort_of_datagrams_tells_nothing) {
    open_datagram_with_much();
    EQ(casync_datagram_abort(&datagram), 0);
    turns(3);
    casync_datagram_close(&datagram);
    end_stream();
}
static int64_t finishes_datagrams(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_datagram_finish(&datagram);
}
TEST(a_finish_of_datagrams_that_is_cancelled_tells_what_is_lost) {
    casync_task *task;
    open_datagram_with_much();
    task = spawn(finishes_datagrams, NULL);
    turns(2);
    EQ(casync_task_cancel(task), 1);
    EQ(casync_run_until_complete(&task->future), -ECANCELED);
    casync_task_release(task);
    SAID("told=-103");
    casync_datagram_close(&datagram);
    end_stream();
}
