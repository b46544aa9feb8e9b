/* A UDP echo server: each datagram goes back to where it came from.

   Run it from the repository's root:   tcc -run examples/udp_echo.c [port]
   Talk to it:                          nc -u 127.0.0.1 7000
   Ctrl-C ends it. The default port is 7000; 0 takes any free one. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static casync_loop loop;
static casync_datagram server;
static casync_signal interrupt, terminate;

static void datagram_received(casync_datagram *datagram, casync_span data,
                              const casync_address *from) {
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result = casync_datagram_write(datagram, data.ptr, data.len, from);
    printf("%zu bytes from %s\n", data.len, casync_address_text(from, text));
    if (result < 0)
        printf("not sent back: %s\n", casync_strerror(result)); /* UDP may lose datagrams */
}

static void error_received(casync_datagram *datagram, int64_t error) {
    (void)datagram;
    printf("error: %s\n", casync_strerror(error));
}

/* When we cannot send as fast as datagrams come, the kernel drops what comes, and not our memory
   fills. These two fail only if the socket is ending. */
static void pause_writing(casync_datagram *datagram) { casync_datagram_pause_reading(datagram); }
static void resume_writing(casync_datagram *datagram) { casync_datagram_resume_reading(datagram); }

static const casync_datagram_protocol echo = {
    .datagram_received = datagram_received,
    .error_received = error_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
};

static void quit(void *arg) {
    (void)arg;
    (void)casync_datagram_finish_start(&server); /* fails if another signal came before: it is
                                                    ending */
}

static int64_t watch_signal(casync_signal *signal, int signum) {
    int64_t result = casync_signal_start(&loop, signal, signum, CASYNC_SIGNAL_ONCE, quit, NULL);
    if (result >= 0) casync_signal_ref(signal, false); /* the signal alone is no reason to go on */
    return result;
}

static int64_t serve(int port) {
    casync_datagram_desc desc = {.local_host = "127.0.0.1", .local_port = port, .protocol = &echo};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    if ((result = watch_signal(&interrupt, SIGINT)) < 0) return result;
    if ((result = watch_signal(&terminate, SIGTERM)) < 0) return result;
    if ((result = casync_datagram_open(&loop, &server, &desc)) < 0) return result;
    if ((result = casync_datagram_local_address(&server, &address)) < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    return casync_run_until_idle(&loop); /* ends when the socket is closed */
}

int main(int argc, char **argv) {
    int64_t result;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* line by line, into a pipe too */
    result = serve(argc > 1 ? atoi(argv[1]) : 7000);
    casync_datagram_close(&server); /* after an error it may be open still */
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "udp_echo: %s\n", casync_strerror(result));
    return result < 0;
}
