/* >> TLS: what is inside is read and written as on any stream, and what is wrong ends in an error.
   Compiled with CASYNC_OPENSSL, and linked with -lssl -lcrypto. */
#include "../loop_fixture.h"

static char directory[] = "/tmp/casync-tls-XXXXXX";
static char certificate_file[64], key_file[64], errors[256];
static casync_tls_context *server_context, *client_context;
static casync_tls_context_desc server_desc, client_desc;
static casync_tls_desc server_tls, client_tls;
static casync_stream server, client;

/* A certificate for localhost and 127.0.0.1, which signs itself. */
static void make_certificate(void) {
    char command[512];
    EXPECT(mkdtemp(directory));
    snprintf(certificate_file, sizeof certificate_file, "%s/cert.pem", directory);
    snprintf(key_file, sizeof key_file, "%s/key.pem", directory);
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
             "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
             "-keyout %s -out %s 2>/dev/null",
             key_file, certificate_file);
    EQ(system(command), 0);
    server_desc.server = true;
    server_desc.certificate_file = certificate_file;
    server_desc.key_file = key_file;
    client_desc.ca_file = certificate_file;
}

static void make_contexts(void) {
    EQ(casync_tls_context_make(&server_context, &server_desc), 0);
    EQ(casync_tls_context_make(&client_context, &client_desc), 0);
    server_tls.context = server_context;
    client_tls.context = client_context;
    client_tls.server_name = "localhost";
    client_tls.errors = errors;
    client_tls.errors_size = sizeof errors;
}

static void open_tls(int clock) {
    make_certificate();
    make_contexts();
    open_loop(clock);
    EQ(casync_socketpair(&loop, &server, &client, NULL, NULL), 0);
}

static void close_tls(void) {
    char command[128];
    casync_close(&server);
    casync_close(&client);
    casync_tls_context_release(server_context);
    casync_tls_context_release(client_context);
    close_loop();
    snprintf(command, sizeof command, "rm -rf %s", directory);
    EQ(system(command), 0);
}

/* Both handshakes at once; the results. */
static int64_t server_result, client_result;

static void shake_hands(void) {
    static casync_op one, two;
    casync_future *a = casync_start_tls_op(&server, &one, &server_tls);
    casync_future *b = casync_start_tls_op(&client, &two, &client_tls);
    client_result = casync_run_until_complete(b);
    server_result = casync_run_until_complete(a);
}

static void be_friends(void) {
    shake_hands();
    EQ(client_result, 0);
    EQ(server_result, 0);
}

static int64_t read_from(casync_stream *stream, void *data, size_t size) {
    static casync_op op;
    return casync_run_until_complete(casync_read_op(stream, &op, data, size));
}

static int64_t finish(casync_stream *stream) {
    static casync_op op;
    return casync_run_until_complete(casync_finish_op(stream, &op));
}

/* >> handshakes -------------------------------------------------------------------------------- */

TEST(bytes_go_both_ways) {
    char text[32] = "";
    casync_tls_info info;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_tls_info_of(&client, &info), CASYNC_INVALID_STATE);
    be_friends();
    EQ(casync_write(&client, "question", 8), 8);
    EQ(read_from(&server, text, sizeof text), 8);
    STR_EQ(text, "question");
    EQ(casync_write(&server, "answer", 6), 6);
    EQ(read_from(&client, text, sizeof text), 6);
    EQ(casync_tls_info_of(&client, &info), 0);
    STR_EQ(info.version, "TLSv1.3");
    EXPECT(strlen(info.cipher) > 5);
    EXPECT(info.peer_certificate);
    PTR_EQ(info.protocol, NULL);
    EQ(finish(&client), 0);
    EQ(read_from(&server, text, sizeof text), 0); /* the end, told by a close_notify */
    close_tls();
}

TEST(what_is_written_before_the_handshake_is_over_comes_after_it) {
    static casync_op one, two;
    char text[32] = "";
    open_tls(CASYNC_CLOCK_MONOTONIC);
    casync_start_tls_op(&client, &one, &client_tls);
    EQ(casync_write(&client, "early", 5), 5);
    casync_start_tls_op(&server, &two, &server_tls);
    EQ(read_from(&server, text, sizeof text), 5);
    STR_EQ(text, "early");
    EQ(casync_future_result(&one.future), 0);
    close_tls();
}

TEST(another_name_is_an_error_in_words) {
    open_tls(CASYNC_CLOCK_MONOTONIC);
    client_tls.server_name = "example.com";
    shake_hands();
    EQ(client_result, CASYNC_TLS_FAILED);
    EXPECT(strstr(errors, "certificate verify failed"));
    EXPECT(server_result < 0);
    EXPECT(!casync_stream_is_open(&client));
    close_tls();
}

TEST(an_address_may_be_the_name) {
    open_tls(CASYNC_CLOCK_MONOTONIC);
    client_tls.server_name = "127.0.0.1";
    be_friends();
    casync_close(&client);
    casync_close(&server);
    EQ(casync_socketpair(&loop, &server, &client, NULL, NULL), 0);
    client_tls.server_name = "127.0.0.2";
    shake_hands();
    EQ(client_result, CASYNC_TLS_FAILED);
    close_tls();
}

TEST(whom_nobody_trusts_is_refused_unless_nobody_asks) {
    casync_tls_context *trusting;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    client_desc.ca_file = NULL;
    casync_tls_context_release(client_context);
    EQ(casync_tls_context_make(&client_context, &client_desc), 0);
    client_tls.context = client_context;
    shake_hands();
    EQ(client_result, CASYNC_TLS_FAILED);
    casync_close(&client);
    casync_close(&server);
    client_desc.no_verify = true;
    EQ(casync_tls_context_make(&trusting, &client_desc), 0);
    client_tls.context = trusting;
    client_tls.server_name = NULL;
    EQ(casync_socketpair(&loop, &server, &client, NULL, NULL), 0);
    be_friends();
    casync_tls_context_release(trusting); /* the connection has it still */
    EQ(casync_write(&client, "x", 1), 1);
    client_tls.context = client_context;
    casync_close(&client);
    EQ(casync_socketpair(&loop, &client, &server, NULL, NULL), -EALREADY);
    close_tls();
}

TEST(a_name_is_demanded_of_who_verifies) {
    casync_op op;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    client_tls.server_name = NULL;
    EQ(casync_future_result(casync_start_tls_op(&client, &op, &client_tls)), -EINVAL);
    EXPECT(casync_stream_is_open(&client));
    client_tls.context = NULL;
    EQ(casync_future_result(casync_start_tls_op(&client, &op, &client_tls)), -EINVAL);
    close_tls();
}

TEST(certificates_that_cannot_be_used_are_told_in_words) {
    casync_tls_context *context;
    make_certificate();
    make_contexts();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    server_desc.errors = errors;
    server_desc.errors_size = sizeof errors;
    server_desc.certificate_file = "/no/such/file";
    EQ(casync_tls_context_make(&context, &server_desc), CASYNC_TLS_FAILED);
    EXPECT(strstr(errors, "No such file") || strstr(errors, "no such file"));
    PTR_EQ(context, NULL);
    server_desc.certificate_file = NULL;
    server_desc.certificate = "no certificate at all";
    EQ(casync_tls_context_make(&context, &server_desc), CASYNC_TLS_FAILED);
    EXPECT(errors[0]);
    EQ((int64_t)ERR_peek_error(), 0); /* the thread's queue is as it was */
    close_tls();
}

TEST(a_protocol_is_chosen_by_the_server) {
    static const char *const ours[] = {"h2", "http/1.1", NULL}, *const theirs[] = {"http/1.1",
                                                                                   NULL};
    casync_tls_info info;
    server_desc.protocols = ours;
    client_desc.protocols = theirs;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    be_friends();
    EQ(casync_tls_info_of(&server, &info), 0);
    STR_EQ(info.protocol, "http/1.1");
    EQ(casync_tls_info_of(&client, &info), 0);
    STR_EQ(info.protocol, "http/1.1");
    close_tls();
}

static casync_tls_context *choose(const char *name, void *arg) {
    say(WORD(name));
    return (casync_tls_context *)arg;
}

TEST(the_server_may_choose_by_the_name) {
    server_desc.choose = choose;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    be_friends();
    SAID("localhost");
    close_tls();
}

TEST(a_client_that_must_have_a_certificate_and_has_none_is_refused) {
    char byte;
    server_desc.verify_client = true;
    server_desc.ca_file = certificate_file;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    shake_hands();
    EQ(server_result, CASYNC_TLS_FAILED);
    if (client_result == 0) EXPECT(read_from(&client, &byte, 1) < 0); /* TLS 1.3 tells later */
    close_tls();
}

TEST(a_session_is_resumed) {
    casync_tls_info info;
    char byte;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    be_friends();
    EQ(casync_write(&server, "x", 1), 1); /* behind the session's ticket */
    EQ(read_from(&client, &byte, 1), 1);
    EQ(finish(&client), 0);
    casync_close(&server);
    EQ(casync_socketpair(&loop, &server, &client, NULL, NULL), 0);
    be_friends();
    EQ(casync_tls_info_of(&client, &info), 0);
    EXPECT(info.resumed);
    close_tls();
}

/* >> peers that misbehave ---------------------------------------------------------------------- */

TEST(a_peer_that_just_ends_is_an_error) {
    char byte;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    be_friends();
    EQ(shutdown(client.endpoint.watcher.fd, SHUT_WR), 0); /* and no close_notify */
    EQ(read_from(&server, &byte, 1), CASYNC_INCOMPLETE_READ);
    close_tls();
}

TEST(what_came_before_tls_is_no_data) {
    static casync_op op;
    const void *line;
    char byte;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_write(&client, "STARTTLS\nINJECTED\n", 18), 18);
    EQ(casync_run_until_complete(casync_read_until_op(&server, &op, "\n", 1)), 9);
    line = op.future.ptr;
    EXPECT(memcmp(line, "STARTTLS\n", 9) == 0);
    server_tls.errors = errors;
    server_tls.errors_size = sizeof errors;
    EQ(casync_run_until_complete(casync_start_tls_op(&server, &op, &server_tls)),
       CASYNC_TLS_FAILED);
    EXPECT(errors[0]);
    EXPECT(read_from(&server, &byte, 1) < 0);
    close_tls();
}

TEST(a_hello_that_was_read_ahead_is_taken) {
    static casync_op one, two;
    const char *start = "STARTTLS\n";
    char text[8] = "";
    open_tls(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_write(&client, start, 9), 9);
    casync_start_tls_op(&client, &one, &client_tls); /* its hello comes with the line */
    EQ(casync_run_until_complete(casync_read_until_op(&server, &two, "\n", 1)), 9);
    EQ(casync_run_until_complete(casync_start_tls_op(&server, &two, &server_tls)), 0);
    EQ(casync_run_until_complete(&one.future), 0);
    EQ(casync_write(&client, "ok", 2), 2);
    EQ(read_from(&server, text, 2), 2);
    close_tls();
}

TEST(garbage_is_an_error) {
    static casync_op op;
    static char garbage[70000];
    open_tls(CASYNC_CLOCK_MONOTONIC);
    memset(garbage, 'g', sizeof garbage);
    casync_start_tls_op(&server, &op, &server_tls);
    EXPECT(casync_write(&client, garbage, sizeof garbage) > 0);
    EQ(casync_run_until_complete(&op.future), CASYNC_TLS_FAILED);
    casync_abort(&client);
    close_tls();
}

TEST(a_handshake_has_a_time_limit) {
    static casync_op op;
    int64_t began;
    open_tls(CASYNC_CLOCK_VIRTUAL_FORCED);
    server_tls.handshake_timeout = CASYNC_SECONDS(7);
    began = casync_time(&loop);
    EQ(casync_run_until_complete(casync_start_tls_op(&server, &op, &server_tls)), -ETIMEDOUT);
    EXPECT(casync_time(&loop) - began >= CASYNC_SECONDS(7));
    EXPECT(!casync_stream_is_open(&server));
    close_tls();
}

TEST(a_handshake_that_is_given_up_ends_the_stream) {
    static casync_op op;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    casync_start_tls_op(&client, &op, &client_tls);
    EQ(casync_future_cancel(&op.future), 1);
    EQ(casync_run_nowait(&loop), 0);
    EXPECT(!casync_stream_is_open(&client));
    casync_start_tls_op(&server, &op, &server_tls);
    casync_close(&server);
    EQ(casync_future_result(&op.future), -ECONNABORTED);
    close_tls();
}

/* >> much -------------------------------------------------------------------------------------- */

static char megabytes[3 << 20];

static int64_t sends_much(casync_loop *where, void *arg) {
    int64_t result = casync_write_all((casync_stream *)arg, megabytes, sizeof megabytes);
    (void)where;
    return result < 0 ? result : casync_finish((casync_stream *)arg);
}

static int64_t reads_much(casync_loop *where, void *arg) {
    static char received[sizeof megabytes];
    int64_t result = casync_read_exactly((casync_stream *)arg, received, sizeof received);
    (void)where;
    if (result < 0) return result;
    return memcmp(received, megabytes, sizeof received) == 0 ? result : -EBADMSG;
}

TEST(much_comes_whole) {
    casync_task *sender;
    size_t i;
    char byte;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < sizeof megabytes; i++) megabytes[i] = (char)(i * 31 / 7);
    be_friends();
    sender = spawn(sends_much, &client);
    EQ(run_task(reads_much, &server), sizeof megabytes);
    EQ(read_from(&server, &byte, 1), 0);
    EQ(casync_run_until_complete(&sender->future), 0);
    casync_task_release(sender);
    close_tls();
}

static void close_at_data(casync_stream *stream, casync_span data) {
    EQ(data.len, 5);
    say(WORD("data"));
    casync_close(stream);
}

TEST(a_protocol_may_close_its_stream_with_the_first_bytes) {
    casync_protocol protocol;
    memset(&protocol, 0, sizeof protocol);
    protocol.data_received = close_at_data;
    open_tls(CASYNC_CLOCK_MONOTONIC);
    be_friends();
    EQ(casync_set_protocol(&server, &protocol), 0);
    EQ(casync_write(&client, "hello", 5), 5);
    while (!said_size) EQ(casync_run_once(&loop), 0);
    SAID("data");
    EXPECT(!casync_stream_is_open(&server));
    close_tls();
}

/* >> openssl's own programs -------------------------------------------------------------------- */

static int64_t talks_to_openssl(casync_loop *where, void *arg) {
    const char *const words[] = {"openssl",
                                 "s_client",
                                 "-quiet",
                                 "-CAfile",
                                 certificate_file,
                                 "-verify_return_error",
                                 "-servername",
                                 "localhost",
                                 "-connect",
                                 (const char *)arg,
                                 NULL};
    casync_process_desc desc = ZERO;
    casync_process process = ZERO;
    casync_process_output output;
    casync_span hello = {"hello\n", 6};
    int64_t result;
    desc.args = words;
    desc.in = desc.out = CASYNC_STDIO_PIPE;
    desc.err = CASYNC_STDIO_NULL;
    result = casync_process_start(where, &process, &desc);
    if (result < 0) return result;
    result = casync_process_communicate(&process, hello, &output, 4096);
    if (result == 0 && (output.out.len != 6 || memcmp(output.out.ptr, "HELLO\n", 6) != 0))
        result = -EBADMSG;
    casync_process_output_free(&output);
    casync_process_close(&process);
    return result;
}

static int64_t shouts_back(casync_loop *where, void *connection) {
    casync_stream *stream = (casync_stream *)connection;
    char text[64];
    int64_t result = casync_start_tls(stream, &server_tls), i;
    (void)where;
    if (result == 0) result = casync_read(stream, text, sizeof text);
    if (result <= 0) return result;
    for (i = 0; i < result; i++)
        if (text[i] >= 'a') text[i] = (char)(text[i] - 'a' + 'A');
    return casync_write_all(stream, text, (size_t)result);
}

TEST(openssls_client_is_served) {
    static casync_server listener;
    casync_listen_desc listen_desc = ZERO;
    casync_address address;
    char where[CASYNC_ADDRESS_TEXT];
    open_tls(CASYNC_CLOCK_MONOTONIC);
    listen_desc.host = "127.0.0.1";
    listen_desc.task = shouts_back;
    EQ(casync_listen(&loop, &listener, &listen_desc), 0);
    EQ(casync_server_address(&listener, &address), 0);
    EQ(run_task(talks_to_openssl, WORD(casync_address_text(&address, where))), 0);
    casync_server_close(&listener);
    EQ(casync_run_until_idle(&loop), 0);
    close_tls();
}
