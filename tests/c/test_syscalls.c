/* >> system calls: how many there are, and what happens when each of them fails. */
#include "syscalls_fixture.h"
#include "streams_fixture.h"

static casync_protocol protocol;

static void echo(casync_stream *stream, casync_span data) {
    EQ(casync_write(stream, data.ptr, data.len), data.len);
}

static casync_server server;

/* >> how many --------------------------------------------------------------------------------- */

static void queue_again(void *arg) {
    casync_job *job = (casync_job *)arg;
    if (loop.turns < 1000) EQ(casync_call_soon(&loop, job, queue_again, job), 0);
}

TEST(queueing_and_timers_make_no_calls) {
    static casync_timer timers[100];
    int i;
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    forget_calls();
    for (i = 0; i < 100; i++) {
        EQ(casync_call_soon(&loop, NULL, do_nothing, NULL), 0);
        EQ(casync_call_later(&loop, &timers[i], CASYNC_SECONDS(i), do_nothing, NULL), 0);
        EQ(casync_timer_stop(&timers[i]), 1);
        EQ(casync_call_soon_threadsafe(&loop, NULL, do_nothing, NULL), 0);
        casync_wake(&loop); /* it does not wait */
    }
    EQ(calls_made, 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(calls_made, 1);
    close_loop();
}

TEST(a_busy_loop_polls_seldom) {
    casync_job job = ZERO;
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    forget_calls();
    queue_again(&job);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(calls_made, loop.polls);
    EXPECT(calls_made < 1000);
    close_loop();
}

TEST(watching_is_one_call_and_changes_are_batched) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_socketpair(fds);
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    forget_calls();
    EQ(casync_add_reader(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    EQ(calls("epoll_ctl"), 1);
    EQ(casync_add_writer(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    EQ(casync_remove_writer(&watcher), 1);
    EQ(casync_add_writer(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    EQ(casync_remove_writer(&watcher), 1);
    turn();
    EQ(calls("epoll_ctl"), 1); /* what was undone before the poll is not told */
    EQ(casync_add_writer(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    EQ(calls("epoll_ctl"), 1);
    turn();
    EQ(calls("epoll_ctl"), 2);
    EQ(casync_remove_writer(&watcher), 1);
    EQ(casync_remove_reader(&watcher), 1);
    EQ(calls("epoll_ctl"), 3);
    turn();
    EQ(calls("epoll_ctl"), 3);
    close_loop();
    close_both(fds);
}

TEST(a_kept_watcher_starts_again_without_a_call) {
    casync_watcher watcher = ZERO;
    int fds[2], i;
    make_socketpair(fds);
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_add_reader(&loop, &watcher, fds[0], do_nothing, NULL), 0);
    casync_watcher_keep(&watcher, true);
    forget_calls();
    for (i = 0; i < 3; i++) {
        EQ(casync_remove_reader(&watcher), 1);
        turn();
        EQ(casync_add_reader(&loop, &watcher, fds[0], do_nothing, NULL), 0);
        turn();
    }
    EQ(calls("epoll_ctl"), 0);
    EQ(casync_remove_reader(&watcher), 1);
    casync_watcher_keep(&watcher, false);
    EQ(calls("epoll_ctl"), 1);
    close_loop();
    close_both(fds);
}

TEST(a_message_received_and_answered_is_one_read_and_one_send) {
    int i;
    protocol = no_protocol();
    protocol.data_received = echo;
    install_faults();
    open_with_peer(&protocol, NULL);
    turn();
    forget_calls();
    for (i = 0; i < 10; i++) {
        peer_says("hello");
        turn();
        peer_hears("hello");
    }
    EQ(calls("read"), 10);
    EQ(calls("send"), 10);
    EQ(calls("epoll_ctl"), 0);
    EQ(calls_made, 30); /* and a poll each */
    close_with_peer();
}

TEST(what_is_queued_costs_nothing_until_the_socket_is_writable) {
    int i;
    install_faults();
    open_with_peer(NULL, NULL);
    squeeze(&a);
    fill(&a);
    forget_calls();
    for (i = 0; i < 100; i++) EQ(write_text(&a, "more"), 4);
    EQ(calls_made, 0);
    casync_close_reset(&a);
    close_with_peer();
}

static void *post_twice(void *arg) {
    static casync_job jobs[2];
    EQ(casync_call_soon_threadsafe(&loop, &jobs[0], do_nothing, NULL), 0);
    EQ(casync_call_soon_threadsafe(&loop, &jobs[1], do_nothing, NULL), 0);
    (void)arg;
    return NULL;
}

static void post_before_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (timeout > 0) join_thread(start_thread(post_twice, NULL));
}

TEST(a_sleep_is_ended_by_one_write_however_many_post) {
    casync_loop_desc desc = ZERO;
    casync_timer timer = ZERO;
    desc.before_wait = post_before_wait;
    install_faults();
    open_loop_with(desc);
    EQ(casync_call_later(&loop, &timer, CASYNC_SECONDS(1000), never, NULL), 0);
    forget_calls();
    EQ(casync_run_once(&loop), 0);
    EQ(calls("write"), 1);
    close_loop();
}

/* >> what may be helped ----------------------------------------------------------------------- */

TEST(without_the_nosignal_flag_pipes_are_written_without_sigpipe_too) {
    int i;
    signal(SIGPIPE, SIG_DFL);
    fail_calls("pwritev2", 0, 1, -EOPNOTSUPP);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 2; i++) {
        EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
        EQ(write_text(&b, "hello"), 5);
        casync_close(&a);
        EQ(write_text(&b, "hello"), -EPIPE);
        casync_close(&b);
    }
    EQ(calls("pwritev2"), 1);
    EQ(calls("writev"), 4);
    close_loop();
}

static int connections;

static void count_connection(casync_stream *stream) {
    (void)stream;
    connections++;
}

static void listen_and_connect(void) {
    casync_listen_desc listen_desc = ZERO;
    casync_connect_desc connect_desc = ZERO;
    casync_address address;
    protocol = no_protocol();
    protocol.connection_made = count_connection;
    protocol.data_received = echo;
    listen_desc.host = connect_desc.host = "127.0.0.1";
    listen_desc.protocol = &protocol;
    listen_desc.start_paused = true;
    EQ(casync_listen(&loop, &server, &listen_desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.port = casync_address_port(&address);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
}

static void close_server(void) {
    EXPECT(casync_server_abort_clients(&server) >= 0);
    turns(2);
    casync_close(&a);
    casync_server_close(&server);
    close_loop();
}

TEST(a_connection_that_broke_before_it_was_accepted_is_skipped) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_and_connect();
    fail_calls("accept", 0, 3, -ECONNABORTED);
    EQ(casync_server_resume(&server), 0);
    while (connections == 0) EQ(casync_run_once(&loop), 0);
    SAID("");
    close_server();
}

TEST(accepting_waits_when_the_system_is_out_of_something) {
    static const int errors[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS};
    size_t i;
    char sentence[32];
    for (i = 0; i < 4; i++) {
        int64_t start;
        connections = 0;
        open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
        listen_and_connect();
        fail_calls("accept", 0, 1, -errors[i]);
        EQ(casync_server_resume(&server), 0);
        start = casync_time(&loop);
        while (connections == 0) EQ(casync_run_once(&loop), 0);
        EQ(casync_time(&loop) - start, CASYNC_MS(100));
        snprintf(sentence, sizeof sentence, "exception=%d", -errors[i]);
        SAID(sentence);
        close_server();
    }
}

TEST(errors_of_read_and_write_arrive_at_their_stream) {
    char byte;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    peer_says("hello");
    fail_calls("read", 0, 1, -EIO);
    run_until_said("lost=-5");
    close_with_peer();
    open_with_peer(NULL, NULL);
    peer_says("hello");
    fail_calls("read", 0, 1, -ETIMEDOUT);
    EQ(result_of(casync_read_op(&a, &the_op, &byte, 1)), -ETIMEDOUT);
    close_with_peer();
    open_with_peer(&protocol, NULL);
    fail_calls("send", 0, 1, -ENETUNREACH);
    EQ(write_text(&a, "hello"), -ENETUNREACH);
    run_until_said("lost=-101");
    close_with_peer();
}

TEST(a_read_that_would_block_after_all_waits_on) {
    char text[8] = "";
    open_with_peer(NULL, NULL);
    peer_says("hello");
    fail_calls("read", 0, 3, -EAGAIN);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 5);
    close_with_peer();
}

/* >> each call in turn ------------------------------------------------------------------------ */

TEST(init_fails_cleanly_at_every_call) {
    int64_t n;
    for (n = 0;; n++) {
        int64_t result;
        int before = open_descriptors();
        fail_calls(NULL, n, 1, -ENFILE);
        result = casync_loop_init(&loop, NULL);
        if (fault.count > 0) break; /* no call was left to fail */
        EQ(result, -ENFILE);
        EQ(open_descriptors(), before);
        EQ(casync_loop_close(&loop), 0);
    }
    EXPECT(n >= 3);
    fault.count = 0;
    EQ(casync_loop_close(&loop), 0);
}

/* A little of everything. Whatever fails, it goes on with the rest; in the end nothing may be
   left. */
static casync_signal signal_watcher;
static casync_stream sender, receiver, reader, writer;
static char large[200000];
static int64_t references, releases;

static void run_some_turns(void) {
    int i;
    for (i = 0; i < 12; i++) (void)casync_run_nowait(&loop);
}

static void count_release(void *arg) {
    (void)arg;
    releases++;
}

static void use_signals(void) {
    if (casync_signal_start(&loop, &signal_watcher, SIGUSR1, 0, do_nothing, NULL) == 0)
        kill(getpid(), SIGUSR1);
    run_some_turns();
    casync_signal_stop(&signal_watcher);
}

static void use_watchers(void) {
    casync_watcher watcher = ZERO;
    int fds[2];
    make_socketpair(fds);
    put_byte(fds[1]);
    if (casync_add_reader(&loop, &watcher, fds[0], do_nothing, NULL) == 0)
        EXPECT(casync_add_writer(&loop, &watcher, fds[0], do_nothing, NULL) == 0);
    run_some_turns();
    casync_remove_writer(&watcher);
    run_some_turns();
    casync_remove_reader(&watcher);
    close_both(fds);
}

static void use_posts(void) {
    casync_timer timer = ZERO;
    (void)casync_call_later(&loop, &timer, CASYNC_US(1), do_nothing, NULL);
    (void)casync_call_soon(&loop, NULL, do_nothing, NULL);
    (void)casync_call_soon_threadsafe(&loop, NULL, do_nothing, NULL);
    (void)casync_loop_timeout(&loop);
    casync_wake(&loop);
    run_some_turns();
    casync_timer_stop(&timer);
}

static void use_pairs(void) {
    casync_stream_options options;
    casync_op drain, read, finish;
    char bytes[6];
    memset(&options, 0, sizeof options);
    options.receive_fds = true;
    if (casync_socketpair(&loop, &sender, &receiver, NULL, &options) < 0) return;
    (void)write_text(&sender, "hello");
    (void)casync_send_fd(&sender, 0, "x", 1);
    if (casync_write_ref(&sender, large, sizeof large, count_release, NULL) ==
        (int64_t)sizeof large)
        references++;
    casync_drain_op(&sender, &drain);
    casync_read_exactly_op(&receiver, &read, bytes, sizeof bytes);
    run_some_turns();
    casync_finish_op(&sender, &finish);
    run_some_turns();
    casync_close(&sender);
    casync_close(&receiver);
    (void)casync_future_result(&drain.future);
    (void)casync_future_result(&read.future);
    (void)casync_future_result(&finish.future);
    casync_future_close(&drain.future);
    casync_future_close(&read.future);
    casync_future_close(&finish.future);
}

static void use_pipes(void) {
    if (casync_pipe(&loop, &reader, &writer, NULL, NULL) < 0) return;
    (void)casync_write(&writer, large, sizeof large);
    run_some_turns();
    casync_close(&reader);
    run_some_turns();
    casync_close(&writer);
}

static void echo_if_possible(casync_stream *stream, casync_span data) {
    (void)casync_write(stream, data.ptr, data.len);
}

static void use_server(void) {
    casync_listen_desc listen_desc = ZERO;
    casync_connect_desc connect_desc = ZERO;
    casync_address address;
    memset(&address, 0, sizeof address);
    protocol = no_protocol();
    protocol.data_received = echo_if_possible;
    listen_desc.host = connect_desc.host = connect_desc.local_host = "127.0.0.1";
    listen_desc.protocol = connect_desc.protocol = &protocol;
    listen_desc.options.keepalive = 5;
    listen_desc.reuse_port = true;
    if (casync_listen(&loop, &server, &listen_desc) < 0) return;
    (void)casync_server_address(&server, &address);
    connect_desc.port = casync_address_port(&address);
    (void)casync_connect_start(&loop, &a, &connect_desc);
    (void)casync_connect_start(&loop, &b, &connect_desc);
    run_some_turns();
    (void)write_text(&a, "hello");
    (void)casync_write_eof(&b);
    run_some_turns();
    (void)casync_finish_start(&a);
    casync_close_reset(&b);
    run_some_turns();
    casync_close(&a);
    (void)casync_server_abort_clients(&server);
    casync_server_close(&server);
    run_some_turns();
}

static void use_everything(void) {
    casync_loop_desc desc = ZERO;
    desc.exception_handler = ignore_exception;
    desc.allocator = test_allocator();
    if (casync_loop_init(&loop, &desc) < 0) return;
    use_posts();
    use_watchers();
    use_pairs();
    use_pipes();
    use_server();
    use_signals();
    EQ(casync_loop_close(&loop), 0);
    EQ(references, releases);
    EQ(memory.live, 0);
}

/* Fails the n-th call from the beginning, for all n, until none is left to fail. */
static void fail_each_call(int64_t error) {
    int64_t n;
    int before;
    signal(SIGPIPE, SIG_IGN);
    install_faults();
    use_everything(); /* what stays for good (the descriptors of signals) is there afterwards */
    before = open_descriptors();
    for (n = 0;; n++) {
        last_failed[0] = 0;
        fail_calls(NULL, n, 1, error);
        use_everything();
        if (fault.count > 0) break;
        if (open_descriptors() != before) STR_EQ(last_failed, "nothing: but a descriptor leaked");
    }
    EXPECT(n > 100);
}

TEST(every_call_may_fail_with_eio) { fail_each_call(-EIO); }
TEST(every_call_may_fail_with_enomem) { fail_each_call(-ENOMEM); }
TEST(every_call_may_fail_with_einval) { fail_each_call(-EINVAL); }
TEST(every_call_may_fail_with_enosys) { fail_each_call(-ENOSYS); }

/* The same for memory. */
TEST(every_allocation_may_fail) {
    int64_t n, total;
    int before;
    use_everything();
    total = memory.allocations;
    before = open_descriptors();
    for (n = 1; n <= total; n++) {
        fail_allocation(n, 1);
        use_everything();
        EQ(open_descriptors(), before);
        fail_allocation(n, 0);
        use_everything();
        EQ(open_descriptors(), before);
        fail_no_allocation();
    }
}
