/* >> refusals: what the kernel refuses for a while is tried again, what it refuses for good is
   told to who waits. */
#include "faults.h"

#define FOR_GOOD INT64_MAX /* so many refusals */

static casync_protocol protocol;
static char text[256];

/* >> watches that are refused ----------------------------------------------------------------- */

/* A change that was just refused is not waited for without end. */
static void expect_short_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (last_failed[0]) EXPECT(timeout <= CASYNC_MS(100));
    last_failed[0] = 0;
}

static void open_refused_loop(void) {
    casync_loop_desc desc = ZERO;
    desc.before_wait = expect_short_wait;
    install_faults();
    open_loop_with(desc);
}

static void say_result(void *op) {
    say_number("done", casync_future_result(&((casync_op *)op)->future));
}

/* Says what comes of the operation. */
static void await_op(casync_future *future) {
    PTR_EQ(future, &the_op.future);
    EQ(casync_future_add_done_callback(future, NULL, say_result, &the_op), 0);
}

static void run_until_anything_was_said(void) {
    while (said_size == 0) EQ(casync_run_once(&loop), 0);
}

static void ignore_exception(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where, (void)exception, (void)arg;
}

/* Begins to wait for what is ready, or will be, and makes the kernel refuse to watch it. */
static void begin_refused(void (*begin)(void), int64_t refusals, int64_t error) {
    open_refused_loop();
    casync_set_exception_handler(&loop, ignore_exception, NULL);
    begin();
    last_failed[0] = 0;
    fail_calls("epoll_ctl", 0, refusals, error);
    run_until_anything_was_said();
    fault.count = 0;
}

#define REFUSED_FOR_A_WHILE(name, begin, end, comes)                                               \
    TEST(name##_refused_for_a_while) {                                                             \
        begin_refused(begin, 2, -ENOMEM);                                                          \
        SAID(comes);                                                                               \
        end();                                                                                     \
        close_loop();                                                                              \
    }
#define REFUSED_FOR_GOOD(name, begin, end, fails)                                                  \
    TEST(name##_refused_for_good) {                                                                \
        begin_refused(begin, FOR_GOOD, -ENOSPC);                                                   \
        SAID(fails);                                                                               \
        end();                                                                                     \
        close_loop();                                                                              \
        begin_refused(begin, FOR_GOOD, -EPERM);                                                    \
        EXPECT(strstr(said, "=-1"));                                                               \
        SAID(said);                                                                                \
        end();                                                                                     \
        close_loop();                                                                              \
    }
#define REFUSED(name, begin, end, comes, fails)                                                    \
    REFUSED_FOR_A_WHILE(name, begin, end, comes)                                                   \
    REFUSED_FOR_GOOD(name, begin, end, fails)

static void open_pair(const casync_protocol *its_protocol) {
    int fds[2];
    make_socketpair(fds);
    peer = fds[1];
    EQ(casync_stream_open(&loop, &a, fds[0], its_protocol, NULL), 0);
}

static void close_pair(void) {
    casync_close(&a);
    casync_future_close(&the_op.future);
    close(peer);
}

static void begin_read(void) {
    open_pair(NULL);
    peer_says("hello");
    await_op(casync_read_op(&a, &the_op, text, 5));
}
REFUSED(a_read, begin_read, close_pair, "done=5", "done=-28")

static void begin_read_until(void) {
    open_pair(NULL);
    peer_says("hello");
    await_op(casync_read_until_op(&a, &the_op, "o", 1));
}
REFUSED(a_read_of_a_frame, begin_read_until, close_pair, "done=5", "done=-28")

static void begin_protocol(void) {
    protocol = saying_protocol();
    open_pair(&protocol);
    peer_says("hello");
}
REFUSED(a_protocol, begin_protocol, close_pair, "hello", "lost=-28")

static void begin_drain(void) {
    open_pair(NULL);
    EQ(casync_set_write_limits(&a, 0, 0), 0);
    fill(&a);
    await_op(casync_drain_op(&a, &the_op));
    drain_descriptor(peer);
}
REFUSED(a_drain, begin_drain, close_pair, "done=0", "done=-28")

static void begin_finish(void) {
    open_pair(NULL);
    fill(&a);
    await_op(casync_finish_op(&a, &the_op));
    drain_descriptor(peer);
}
REFUSED(a_finish, begin_finish, close_pair, "done=0", "done=-28")

static casync_server server;
static casync_connect_desc connect_desc;
static int client;

static void listen_somewhere(const casync_protocol *its_protocol, bool paused) {
    casync_listen_desc desc = ZERO;
    casync_address address;
    desc.host = connect_desc.host = "127.0.0.1";
    desc.protocol = its_protocol;
    desc.start_paused = paused;
    EQ(casync_listen(&loop, &server, &desc), 0);
    EQ(casync_server_address(&server, &address), 0);
    connect_desc.port = casync_address_port(&address);
}

/* A client of the test's own, whose connection waits in the kernel. */
static void connect_client(void) {
    struct sockaddr_in local;
    memset(&local, 0, sizeof local);
    local.sin_family = AF_INET;
    local.sin_port = htons((uint16_t)connect_desc.port);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EQ(connect(client, (struct sockaddr *)&local, sizeof local), 0);
}

static void begin_accept(void) {
    listen_somewhere(NULL, false);
    connect_client();
    await_op(casync_accept_op(&server, &the_op, &a));
}

static void end_accept(void) {
    casync_close(&a);
    casync_server_close(&server);
    casync_future_close(&the_op.future);
    close(client);
}
REFUSED(an_accept, begin_accept, end_accept, "done=0", "done=-28")

static void said_and_closed(casync_stream *stream) {
    say(WORD("made"));
    casync_close(stream);
}

static void begin_server(void) {
    protocol = no_protocol();
    protocol.connection_made = said_and_closed;
    listen_somewhere(&protocol, false);
    connect_client();
}
REFUSED_FOR_A_WHILE(a_server, begin_server, end_accept, "made")

static void begin_connect(void) {
    listen_somewhere(NULL, true);
    client = dup(0); /* nobody else connects */
    await_op(casync_connect_op(&loop, &a, &the_op, &connect_desc));
}
REFUSED(a_connect, begin_connect, end_accept, "done=0", "done=-28")

static void begin_connect_with_protocol(void) {
    protocol = saying_protocol();
    connect_desc.protocol = &protocol;
    listen_somewhere(NULL, true);
    client = dup(0);
    EQ(casync_connect_start(&loop, &a, &connect_desc), 0);
}
REFUSED(a_protocol_that_connects, begin_connect_with_protocol, end_accept, "made", "lost=-28")

static casync_datagram here;
static casync_datagram_protocol datagram_protocol;

static void open_datagram_pair(void) {
    casync_datagram_desc desc = ZERO;
    int fds[2];
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    desc.fd = fds[0];
    desc.use_fd = true;
    desc.protocol = &datagram_protocol;
    EQ(casync_datagram_open(&loop, &here, &desc), 0);
}

static void close_datagram(void) {
    casync_datagram_close(&here);
    casync_future_close(&the_op.future);
    close(peer);
}

static void begin_receive(void) {
    open_datagram_pair();
    peer_says("hello");
    await_op(casync_datagram_receive_op(&here, &the_op, text, sizeof text, NULL));
}
REFUSED(a_receive, begin_receive, close_datagram, "done=5", "done=-28")

static void begin_send(void) {
    open_datagram_pair();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    await_op(casync_datagram_send_op(&here, &the_op, "hello", 5, NULL));
    drain_descriptor(peer);
}
REFUSED(a_send, begin_send, close_datagram, "done=5", "done=-28")

static void said_datagram(casync_datagram *datagram, casync_span data, const casync_address *from) {
    (void)datagram, (void)data, (void)from;
    say(WORD("received"));
}

static void said_datagram_error(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    say_number("error", error);
}

static void begin_datagram_protocol(void) {
    datagram_protocol.datagram_received = said_datagram;
    datagram_protocol.error_received = said_datagram_error;
    open_datagram_pair();
    peer_says("hello");
}
REFUSED_FOR_A_WHILE(a_datagram_protocol, begin_datagram_protocol, close_datagram, "received")

/* Who comes second to a descriptor: the first interest is told to the kernel at once, this one
   later. */
static casync_op earlier;
static int waited_for;

static void begin_second_wait(void) {
    int fds[2];
    make_socketpair(fds);
    peer = fds[1];
    waited_for = fds[0];
    (void)casync_wait_readable_op(&loop, &earlier, waited_for);
    await_op(casync_wait_writable_op(&loop, &the_op, waited_for));
}

static void end_second_wait(void) {
    casync_future_close(&earlier.future);
    casync_future_close(&the_op.future);
    close(waited_for);
    close(peer);
}
REFUSED(a_second_wait, begin_second_wait, end_second_wait, "done=0", "done=-28")

TEST(a_foreign_loop_does_not_wait_long_for_what_was_refused) {
    open_refused_loop();
    begin_read();
    fail_calls("epoll_ctl", 0, 1, -ENOMEM);
    EXPECT(casync_loop_timeout(&loop) <= CASYNC_MS(100));
    SAID("exception=-12");
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER); /* it is not refused any more */
    EQ(casync_run_nowait(&loop), 0);
    last_failed[0] = 0;
    run_until_said("done=5");
    close_pair();
    close_loop();
}

/* A file that was closed while a duplicate lives, and an instance that cannot be made anew: the
   loop is woken for nothing again and again, which somebody should know. */
TEST(an_event_that_cannot_be_ended_is_told_once) {
    casync_watcher watcher = ZERO;
    int fds[2], duplicate;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    make_pipe(fds);
    put_byte(fds[1]);
    EQ(casync_add_reader(&loop, &watcher, fds[0], never, NULL), 0);
    duplicate = dup(fds[0]);
    close(fds[0]);
    EQ(casync_remove_reader(&watcher), 1);
    fail_calls("epoll_create", 0, FOR_GOOD, -EMFILE);
    turns(20);
    SAID("exception=-24");
    fault.count = 0;
    close(duplicate);
    close(fds[1]);
    turns(2);
    close_loop();
}

/* >> accepting -------------------------------------------------------------------------------- */

/* Any of the errors that say "this connection broke" may be one that does not end. */
TEST(accepting_that_fails_again_and_again_waits_and_is_told) {
    static const int errors[] = {EPERM,     ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT,
                                 EHOSTDOWN, ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH};
    size_t i;
    char sentence[32];
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        int64_t start;
        open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
        begin_server();
        forget_calls();
        fail_calls("accept", 0, FOR_GOOD, -errors[i]);
        turn();
        start = casync_time(&loop);
        snprintf(sentence, sizeof sentence, "exception=%d", -errors[i]);
        SAID(sentence);
        turns(10);
        EXPECT(calls("accept") <= 64); /* not again before the time */
        fault.count = 0;
        run_until_said("made");
        EQ(casync_time(&loop) - start, CASYNC_MS(100));
        end_accept();
        turn();
        close_loop();
    }
}

/* >> calls that a sandbox does not know ------------------------------------------------------- */

TEST(a_pipe_is_written_where_pwritev2_is_not_allowed) {
    signal(SIGPIPE, SIG_DFL);
    fail_calls("pwritev2", 0, FOR_GOOD, -EPERM);
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    EQ(write_text(&b, "hello"), 5);
    casync_close(&a);
    EQ(write_text(&b, "hello"), -EPIPE);
    casync_close(&b);
    EQ(calls("writev"), 2);
    close_loop();
}

static int64_t refuse_writev(int fd, const struct iovec *spans, int count) {
    (void)fd, (void)spans, (void)count;
    return -EPERM;
}

TEST(a_pipe_that_may_not_be_written_at_all_says_so) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_pipe(&loop, &a, &b, NULL, NULL), 0);
    fail_calls("pwritev2", 0, 1, -EPERM);
    casync_syscalls.writev = refuse_writev;
    EQ(write_text(&b, "hello"), -EPERM);
    casync_close(&a);
    casync_close(&b);
    close_loop();
}

static void datagrams_without(const char *call, int64_t error) {
    datagram_protocol.datagram_received = said_datagram;
    datagram_protocol.error_received = said_datagram_error;
    install_faults();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_datagram_pair();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    EQ(casync_datagram_write(&here, "queued", 6, NULL), 6);
    drain_descriptor(peer);
    peer_says("hello");
    fail_calls(call, 0, FOR_GOOD, error);
    turns(3);
    SAID("received");
    EQ(read(peer, text, sizeof text), 6);
    MEM_EQ(text, "queued", 6);
    fault.count = 0;
    close_datagram();
    close_loop();
}

TEST(datagrams_are_received_where_recvmmsg_is_not_known) {
    datagrams_without("recvmmsg", -ENOSYS);
    datagrams_without("recvmmsg", -EPERM);
}

TEST(datagrams_are_sent_where_sendmmsg_is_not_known) {
    datagrams_without("sendmmsg", -ENOSYS);
    datagrams_without("sendmmsg", -EPERM);
}

/* >> results that must be looked at ----------------------------------------------------------- */

static int refused_command;

static int64_t refuse_command(int fd, int command, int argument) {
    return command == refused_command ? -EACCES : casync__direct_fcntl(fd, command, argument);
}

static void refuse_fcntl(int command) {
    refused_command = command;
    casync_syscalls.fcntl = refuse_command;
}

/* A descriptor that might hold up the loop, or reach other programs, is none for the loop: it stays
   the caller's. */
static void expect_refused_stream(int fd) {
    EQ(casync_stream_open(&loop, &a, fd, NULL, NULL), -EACCES);
    EXPECT(!casync_stream_is_open(&a));
    PTR_EQ(casync_watcher_find(&loop, fd), NULL);
    EXPECT(fcntl(fd, F_GETFD) >= 0);
}

TEST(a_descriptor_that_cannot_be_prepared_is_no_stream) {
    static const int commands[] = {F_GETFL, F_SETFL, F_SETFD};
    size_t i;
    for (i = 0; i < 3; i++) {
        int fds[2];
        open_loop(CASYNC_CLOCK_MONOTONIC);
        EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        refuse_fcntl(commands[i]);
        expect_refused_stream(fds[0]);
        close_both(fds);
        EQ(pipe(fds), 0);
        expect_refused_stream(fds[0]);
        expect_refused_stream(fds[1]);
        close_both(fds);
        close_loop();
    }
}

TEST(a_descriptor_that_cannot_be_looked_at_is_no_stream) {
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(pipe(fds), 0);
    fail_calls("fstat", 0, 1, -EACCES);
    expect_refused_stream(fds[1]);
    close_both(fds);
    close_loop();
}

TEST(a_descriptor_that_cannot_be_prepared_is_no_server) {
    static const int commands[] = {F_GETFL, F_SETFL, F_SETFD};
    size_t i;
    for (i = 0; i < 3; i++) {
        casync_listen_desc desc = ZERO;
        open_loop(CASYNC_CLOCK_MONOTONIC);
        desc.use_fd = true;
        desc.fd = socket(AF_INET, SOCK_STREAM, 0);
        refuse_fcntl(commands[i]);
        EQ(casync_listen(&loop, &server, &desc), -EACCES);
        EQ(casync_server_pause(&server), CASYNC_INVALID_STATE);
        PTR_EQ(casync_watcher_find(&loop, desc.fd), NULL);
        EQ(close(desc.fd), 0);
        close_loop();
    }
}

TEST(a_descriptor_that_cannot_be_prepared_is_no_datagram_socket) {
    casync_datagram_desc desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    desc.use_fd = true;
    desc.fd = socket(AF_INET, SOCK_DGRAM, 0);
    refuse_fcntl(F_SETFD);
    EQ(casync_datagram_open(&loop, &here, &desc), -EACCES);
    EXPECT(!casync_datagram_is_open(&here));
    EQ(close(desc.fd), 0);
    close_loop();
}

TEST(a_socket_whose_family_is_not_known_is_refused) {
    casync_listen_desc listen_desc = ZERO;
    casync_datagram_desc datagram_desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_desc.use_fd = datagram_desc.use_fd = true;
    listen_desc.fd = socket(AF_INET, SOCK_STREAM, 0);
    datagram_desc.fd = socket(AF_INET, SOCK_DGRAM, 0);
    fail_calls("getsockopt", 0, 1, -ENOBUFS);
    EQ(casync_listen(&loop, &server, &listen_desc), -ENOBUFS);
    fail_calls("getsockopt", 0, 1, -ENOBUFS); /* its type */
    EQ(casync_datagram_open(&loop, &here, &datagram_desc), -ENOBUFS);
    fail_calls("getsockopt", 1, 1, -ENOBUFS); /* its family */
    EQ(casync_datagram_open(&loop, &here, &datagram_desc), -ENOBUFS);
    EQ(close(listen_desc.fd), 0);
    EQ(close(datagram_desc.fd), 0);
    close_loop();
}

TEST(a_descriptor_is_not_passed_with_the_error_told) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    fail_calls("getsockopt", 0, 1, -ENOBUFS);
    EQ(casync_send_fd(&a, 0, "x", 1), -ENOBUFS);
    EQ(casync_send_fd(&a, 0, "x", 1), 1);
    close_pair();
    close_loop();
}

TEST(an_end_that_cannot_be_sent_ends_the_stream) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol = saying_protocol();
    open_pair(&protocol);
    fail_calls("shutdown", 0, 1, -ENOBUFS);
    (void)casync_write_eof(&a);
    run_until_said("lost=-105");
    close_pair();
    open_pair(&protocol);
    fail_calls("shutdown", 0, 1, -ENOTCONN); /* the other side is gone, which reading tells */
    EQ(casync_write_eof(&a), 0);
    turns(3);
    SAID("");
    close(peer);
    run_until_said("eof lost=0");
    peer = dup(0);
    close_pair();
    close_loop();
}

/* >> sockets' options ------------------------------------------------------------------------- */

static int keepalive_of(int fd) { return socket_option(fd, SOL_SOCKET, SO_KEEPALIVE); }

static void open_tcp_pair(void) {
    casync_op accepting;
    casync_future *accepted;
    listen_somewhere(NULL, false);
    accepted = casync_accept_op(&server, &accepting, &b);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(result_of(accepted), 0);
}

static void close_tcp_pair(void) {
    casync_close(&a);
    casync_close(&b);
    casync_server_close(&server);
}

TEST(a_time_that_keepalive_cannot_have_changes_nothing) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_tcp_pair();
    EQ(casync_set_keepalive(&a, 32768), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    EQ(casync_set_keepalive(&a, INT_MAX), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    EQ(casync_set_keepalive(&a, 32767), 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 1);
    EQ(socket_option(a.endpoint.watcher.fd, IPPROTO_TCP, TCP_KEEPIDLE), 32767);
    EQ(casync_set_keepalive(&a, 32768), -EINVAL);
    EQ(keepalive_of(a.endpoint.watcher.fd), 1);
    EQ(casync_set_keepalive(&a, 0), 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    close_tcp_pair();
    close_loop();
}

TEST(keepalive_that_the_kernel_refuses_is_not_on_by_half) {
    int n;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_tcp_pair();
    for (n = 0; n < 2; n++) {
        fail_calls("setsockopt", n, 1, -ENOBUFS);
        EQ(casync_set_keepalive(&a, 5), -ENOBUFS);
        fault.count = 0;
        EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    }
    close_tcp_pair();
    open_pair(NULL); /* of no TCP */
    EXPECT(casync_set_keepalive(&a, 5) < 0);
    EQ(keepalive_of(a.endpoint.watcher.fd), 0);
    close_pair();
    close_loop();
}

TEST(options_with_a_time_that_keepalive_cannot_have_are_refused) {
    static const int times[] = {32768, INT_MAX, -1};
    size_t i;
    for (i = 0; i < 3; i++) {
        casync_stream_options options;
        casync_listen_desc desc = ZERO;
        int fds[2];
        memset(&options, 0, sizeof options);
        options.keepalive = desc.options.keepalive = times[i];
        open_loop(CASYNC_CLOCK_MONOTONIC);
        make_socketpair(fds);
        EQ(casync_stream_open(&loop, &a, fds[0], NULL, &options), -EINVAL);
        close_both(fds);
        EQ(casync_listen(&loop, &server, &desc), -EINVAL);
        connect_desc.host = "127.0.0.1";
        connect_desc.port = 9;
        connect_desc.options = &options;
        EQ(casync_connect_start(&loop, &a, &connect_desc), -EINVAL);
        close_loop();
    }
}

/* >> errors of who has nobody to tell --------------------------------------------------------- */

TEST(errors_of_a_datagram_socket_without_a_protocol_are_told) {
    casync_datagram_desc desc = ZERO;
    int fds[2];
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    desc.fd = fds[0];
    desc.use_fd = true;
    EQ(casync_datagram_open(&loop, &here, &desc), 0);
    fail_calls("sendto", 0, 1, -EAGAIN);
    EQ(casync_datagram_write(&here, "lost", 4, NULL), 4);
    fail_calls("sendmmsg", 0, 1, -ENETUNREACH);
    turns(2);
    SAID("exception=-101");
    fail_calls("sendto", 0, 1, -EAGAIN);
    await_op(casync_datagram_send_op(&here, &the_op, "told", 4, NULL));
    fail_calls("sendmmsg", 0, 1, -ENETUNREACH);
    run_until_said("done=-101"); /* and nobody else */
    casync_datagram_close(&here);
    casync_future_close(&the_op.future);
    close(fds[1]);
    close_loop();
}

/* >> frames when memory is short -------------------------------------------------------------- */

static size_t taken_by_the_kernel;

static int64_t take_a_part(int fd, const struct msghdr *message) {
    size_t first = message->msg_iov[0].iov_len, rest;
    int64_t sent, more;
    if (taken_by_the_kernel <= first)
        return casync__direct_send(fd, message->msg_iov[0].iov_base, taken_by_the_kernel);
    rest = taken_by_the_kernel - first;
    sent = casync__direct_send(fd, message->msg_iov[0].iov_base, first);
    if (sent < 0) return sent;
    more = casync__direct_send(fd, message->msg_iov[1].iov_base, rest);
    return more < 0 ? more : sent + more;
}

/* A frame of which a part is sent cannot be left at that. */
TEST(a_frame_that_cannot_be_queued_ends_the_stream) {
    casync_framing framing;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 8;
    for (taken_by_the_kernel = 1; taken_by_the_kernel < 15; taken_by_the_kernel++) {
        open_loop(CASYNC_CLOCK_MONOTONIC);
        protocol = saying_protocol();
        open_pair(&protocol);
        casync_syscalls.sendmsg = take_a_part;
        fail_allocation(1, 1);
        EQ(casync_write_frame(&a, &framing, "payload", 7), -ENOMEM);
        fail_no_allocation();
        EXPECT(!casync_stream_is_open(&a));
        run_until_said("lost=-12");
        close(peer);
        casync_syscalls.sendmsg = casync__direct_sendmsg;
        close_loop();
    }
}

/* If none of it is sent, nothing has happened. */
TEST(a_frame_of_which_nothing_was_sent_may_be_tried_again) {
    casync_framing framing;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_LENGTH;
    framing.size = 1;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    fail_calls("sendmsg", 0, 1, -EAGAIN);
    fail_allocation(1, 1);
    EQ(casync_write_frame(&a, &framing, "payload", 7), -ENOMEM);
    fail_no_allocation();
    EQ(casync_write_frame(&a, &framing, "payload", 7), 7);
    peer_hears("\007payload");
    casync_close(&a);
    close(peer);
    close_loop();
}

/* >> lengths that no memory has --------------------------------------------------------------- */

/* The sum of these is small if it is let wrap. */
static casync_span wrapping[2];

static void make_wrapping_spans(void) {
    wrapping[0].ptr = wrapping[1].ptr = text;
    wrapping[0].len = SIZE_MAX - 2;
    wrapping[1].len = 10;
}

TEST(bytes_longer_than_memory_are_not_written) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    /* of what is not sent in the end */
    casync_set_exception_handler(&loop, ignore_exception, NULL);
    open_pair(NULL);
    fill(&a); /* so that the kernel is not asked */
    make_wrapping_spans();
    EQ(casync_writev(&a, wrapping, 2), -EINVAL);
    EQ(casync_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(casync_write_ref(&a, text, SIZE_MAX, never, NULL), -EINVAL);
    EQ(casync_send_fd(&a, 0, text, SIZE_MAX), -EINVAL);
    EXPECT(casync_stream_is_open(&a));
    casync_close_reset(&a);
    close(peer);
    close_loop();
}

TEST(bytes_longer_than_memory_are_not_sent) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_pair(NULL);
    make_wrapping_spans();
    forget_calls();
    install_faults();
    EQ(casync_writev(&a, wrapping, 2), -EINVAL);
    EQ(casync_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(casync_try_write(&a, text, SIZE_MAX), -EINVAL);
    EQ(calls("send") + calls("sendmsg"), 0);
    EXPECT(casync_stream_is_open(&a));
    casync_close(&a);
    close(peer);
    close_loop();
}

TEST(bytes_longer_than_memory_are_not_queued) {
    casync_allocator allocator = test_allocator();
    casync_outbuf out;
    make_wrapping_spans();
    casync_outbuf_init(&out, &allocator);
    EXPECT(casync_outbuf_append(&out, wrapping, 2) < 0);
    EXPECT(casync_outbuf_append(&out, wrapping, 1) < 0);
    EXPECT(casync_outbuf_append_ref(&out, text, SIZE_MAX, never, NULL) < 0);
    EQ(out.size, 0);
    EQ(casync_outbuf_append_ref(&out, text, PTRDIFF_MAX, NULL, NULL), 0);
    EXPECT(casync_outbuf_append_ref(&out, text, PTRDIFF_MAX, never, NULL) < 0); /* in sum */
    EQ(out.size, PTRDIFF_MAX);
    casync_outbuf_clear(&out);
    EQ(memory.live, 0);
}

TEST(datagrams_longer_than_memory_are_not_sent) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    open_datagram_pair();
    make_wrapping_spans();
    while (casync_datagram_try_write(&here, "another", 7, NULL) > 0) continue;
    EQ(casync_datagram_write(&here, "queued", 6, NULL), 6);
    EQ(casync_datagram_writev(&here, wrapping, 2, NULL), -EMSGSIZE);
    EQ(casync_datagram_write(&here, text, SIZE_MAX, NULL), -EMSGSIZE);
    await_op(casync_datagram_send_op(&here, &the_op, text, SIZE_MAX, NULL));
    run_until_said("done=-90");
    close_datagram();
    SAID("exception=-103"); /* for what was queued */
    close_loop();
}

TEST(connections_larger_than_memory_are_not_listened_for) {
    casync_listen_desc desc = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    protocol = no_protocol();
    desc.host = "127.0.0.1";
    desc.protocol = &protocol;
    desc.conn_size = SIZE_MAX;
    EQ(casync_listen(&loop, &server, &desc), -EINVAL);
    desc.conn_size = SIZE_MAX - 16;
    EQ(casync_listen(&loop, &server, &desc), -EINVAL);
    close_loop();
}

/* >> loops of a forked child ------------------------------------------------------------------ */

static void remake_without_descriptors(void) {
    int64_t result;
    fail_calls("epoll_create", 0, 1, -EMFILE);
    EQ(casync_loop_fork(&loop), -EMFILE);
    result = casync_loop_fork(&loop); /* of no use, or made after all; but then it works */
    EQ(casync_run_nowait(&loop) < 0, result < 0);
    EQ(casync_loop_close(&loop), 0);
    _exit(0);
}

TEST(a_loop_that_could_not_be_made_anew_is_not_said_to_be_fine) {
    pid_t pid;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    pid = fork_child();
    if (pid == 0) remake_without_descriptors();
    EQ(child_status(pid), 0);
    close_loop();
}

/* >> connecting ------------------------------------------------------------------------------- */

/* connect(2) of a Unix socket says EAGAIN when the server's queue is full, which no event tells the
   end of. */
TEST(connecting_to_a_full_unix_socket_is_tried_again_now_and_then) {
    casync_listen_desc desc = ZERO;
    char path[64];
    snprintf(path, sizeof path, "@casync-full-%d", (int)getpid());
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    desc.path = connect_desc.path = path;
    EQ(casync_listen(&loop, &server, &desc), 0);
    forget_calls();
    fail_calls("connect", 0, 5, -EAGAIN);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), 0);
    EQ(calls("connect"), 6);
    EXPECT(casync_time(&loop) >= CASYNC_MS(5));   /* it does not spin, */
    EXPECT(casync_time(&loop) <= CASYNC_MS(500)); /* nor sleep */
    casync_close(&a);
    casync_server_close(&server);
    close_loop();
}

/* For others it says that they are out of ports. */
TEST(connecting_without_a_port_that_is_free_fails) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    listen_somewhere(NULL, true);
    forget_calls();
    fail_calls("connect", 0, 1, -EAGAIN);
    EQ(result_of(casync_connect_op(&loop, &a, &the_op, &connect_desc)), -EAGAIN);
    EQ(calls("connect"), 1);
    EXPECT(!casync_stream_is_open(&a));
    casync_server_close(&server);
    close_loop();
}

/* A connection that cannot be kept is not made. */
TEST(connecting_without_memory_makes_no_connection) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    connect_desc.host = "127.0.0.1";
    connect_desc.port = 9;
    install_faults();
    forget_calls();
    fail_allocation(1, 0);
    EQ(casync_connect_start(&loop, &a, &connect_desc), -ENOMEM);
    fail_no_allocation();
    EQ(calls("connect"), 0);
    close_loop();
}

TEST_MAIN
