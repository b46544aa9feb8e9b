/* A server on all cores: a thread for each, with a loop and a listening socket of its own. The
   sockets share one port (SO_REUSEPORT), and the kernel spreads the connections over them.

   Run it from the repository's root:   tcc -run examples/all_cores.c [port] [threads]
   Ask it, more than once:              nc 127.0.0.1 7000 */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

typedef struct worker {
    casync_server server;
    casync_signal interrupt;
    pthread_t thread;
    int number, port;
    int64_t result;
    int served;
} worker;

static worker workers[MOST_THREADS];

static void stop(void *arg) { casync_server_close(&((worker *)arg)->server); }

/* Runs in the thread of the worker whose loop took the connection: nothing is shared. */
static void greet(casync_stream *stream) {
    worker *w = (worker *)casync_get_running_loop()->arg;
    char text[64];
    int size = snprintf(text, sizeof text, "thread %d, connection %d\n", w->number, ++w->served);
    if (casync_write(stream, text, (size_t)size) < 0) casync_abort(stream);
    casync_finish_start(stream);
}

static int64_t serve(casync_loop *loop, void *arg) {
    static const casync_protocol protocol = {.connection_made = greet};
    worker *w = (worker *)arg;
    casync_listen_desc desc = {
        .host = "127.0.0.1", .port = w->port, .reuse_port = true, .protocol = &protocol};
    int64_t result = casync_listen(loop, &w->server, &desc);
    if (result >= 0) /* each loop is told of the signal */
        result = casync_signal_start(loop, &w->interrupt, SIGINT, CASYNC_SIGNAL_ONCE, stop, w);
    if (result >= 0) printf("thread %d is listening on 127.0.0.1:%d\n", w->number, w->port);
    fflush(stdout);
    if (result >= 0) result = casync_server_join(&w->server);
    if (result >= 0) result = casync_server_wait_clients(&w->server);
    casync_signal_stop(&w->interrupt);
    return result;
}

static void *run(void *arg) {
    worker *w = (worker *)arg;
    casync_loop_desc desc = {.arg = w};
    w->result = casync_run_with(&desc, serve, w);
    return NULL;
}

/* A port that is free, if none was given: bound, but not listened at, until the workers have it. */
static int64_t choose_port(casync_loop *loop, void *arg) {
    casync_listen_desc desc = {.host = "127.0.0.1", .reuse_port = true, .start_paused = true};
    casync_server server = {0};
    casync_address address;
    int64_t result;
    desc.port = *(int *)arg;
    result = casync_listen(loop, &server, &desc);
    if (result >= 0) result = casync_server_address(&server, &address);
    if (result >= 0) result = casync_address_port(&address);
    casync_server_close(&server);
    return result;
}

int main(int argc, char **argv) {
    int wanted = argc > 1 ? atoi(argv[1]) : 7000, i;
    int count = argc > 2 ? atoi(argv[2]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int64_t port = casync_run(choose_port, &wanted), result = port;
    sigset_t interrupt;
    if (count > MOST_THREADS) count = MOST_THREADS;
    sigemptyset(&interrupt); /* a signal between the threads' starts must find them all */
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt, NULL);
    for (i = 0; i < count && result >= 0; i++) {
        workers[i].number = i;
        workers[i].port = (int)port;
        result = -pthread_create(&workers[i].thread, NULL, run, &workers[i]);
    }
    while (i-- > 0) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].result < 0) result = workers[i].result;
        printf("thread %d served %d\n", i, workers[i].served);
    }
    if (result < 0) fprintf(stderr, "all_cores: %s\n", casync_strerror(result));
    return result < 0;
}
