/* A loop in 100 lines: a ready queue, a list of timers, and poll.

   Run it from the repository's root:   tcc -run examples/study/06_loop.c

   Each turn: wait, if there is nothing to do, until a descriptor is ready or the earliest timer is
   due; queue the callbacks of the descriptors that are ready, then those of the timers that are
   due; run the queue as it stands. What these callbacks queue waits for the next turn, so that a
   callback which queues itself for ever starves neither descriptors nor timers. This order is
   asyncio's, and casync's. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

typedef void (*callback)(void *arg);

enum { QUEUE = 64, TIMERS = 16, FDS = 16 }; /* tables of fixed size keep this short */

static struct {
    struct {
        callback call;
        void *arg;
    } ready[QUEUE]; /* a ring */
    unsigned first, end;
    struct {
        int64_t when;
        callback call;
        void *arg;
    } timers[TIMERS]; /* the earliest first */
    int timer_count;
    struct pollfd polled[FDS];
    callback readers[FDS];
    nfds_t fd_count;
    bool stopping;
} loop;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* unlike the wall clock it is never set back */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void call_soon(callback call, void *arg) {
    loop.ready[loop.end % QUEUE].call = call;
    loop.ready[loop.end++ % QUEUE].arg = arg;
}

static void call_later(int64_t delay, callback call, void *arg) {
    int64_t when = now_ms() + delay;
    int i = loop.timer_count++;
    for (; i > 0 && loop.timers[i - 1].when > when; i--) loop.timers[i] = loop.timers[i - 1];
    loop.timers[i].when = when;
    loop.timers[i].call = call;
    loop.timers[i].arg = arg;
}

static void add_reader(int fd, callback call) {
    loop.polled[loop.fd_count].fd = fd;
    loop.polled[loop.fd_count].events = POLLIN;
    loop.readers[loop.fd_count++] = call;
}

static int timeout(void) {
    int64_t left;
    if (loop.first != loop.end || loop.stopping) return 0; /* look, do not wait */
    /* for ever: only a descriptor can bring news */
    if (loop.timer_count == 0) return -1;
    left = loop.timers[0].when - now_ms();
    return left > 0 ? (int)left : 0;
}

static void turn(void) {
    nfds_t i;
    unsigned end;
    int ready = poll(loop.polled, loop.fd_count, timeout());
    for (i = 0; ready > 0 && i < loop.fd_count; i++)
        if (loop.polled[i].revents) call_soon(loop.readers[i], &loop.polled[i].fd);
    while (loop.timer_count > 0 && loop.timers[0].when <= now_ms()) {
        call_soon(loop.timers[0].call, loop.timers[0].arg);
        loop.timer_count--;
        for (i = 0; i < (nfds_t)loop.timer_count; i++) loop.timers[i] = loop.timers[i + 1];
    }
    for (end = loop.end; loop.first != end; loop.first++)
        loop.ready[loop.first % QUEUE].call(loop.ready[loop.first % QUEUE].arg);
}

static void run_forever(void) {
    for (loop.stopping = false; !loop.stopping;) turn();
}

/* The program. */

static void say(void *arg) { puts((const char *)arg); }

static void stop(void *arg) {
    (void)arg;
    loop.stopping = true;
}

static void readable(void *arg) {
    char text[16];
    ssize_t size = read(*(int *)arg, text, sizeof text);
    printf("read %.*s\n", (int)size, text);
    loop.fd_count = 0; /* it was the only one */
}

static void in_a_later_turn(void *arg) {
    say(arg);
    call_later(10, say, "timer");
    call_later(20, stop, NULL);
}

static void soon(void *arg) {
    say(arg);
    call_soon(in_a_later_turn, "soon, from a callback: the next turn");
}

int main(void) {
    int fds[2];
    if (pipe(fds) < 0 || write(fds[1], "hello", 5) != 5) return 1;
    call_later(0, say, "timer of 0");
    add_reader(fds[0], readable);
    call_soon(soon, "soon");
    run_forever();
    return 0;
}

/* Prints:
     soon
     read hello
     timer of 0
     soon, from a callback: the next turn
     timer
*/
