/* A casync loop inside another loop, here one made of poll(2): casync_loop_fd says when there is
   something to do, casync_loop_timeout how long to wait at most, casync_run_nowait does it.

   Run it from the repository's root:   echo hello | tcc -run examples/foreign_loop.c
   poll waits for lines on standard input and, for casync, for its timers. It ends
   after five ticks. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static casync_loop loop;
static casync_timer ticker;

static void tick(void *arg) {
    int *left = (int *)arg;
    printf("casync: tick, %d to go\n", --*left);
    if (*left == 0) casync_timer_stop(&ticker);
}

/* poll counts in milliseconds: rounded up, so that it does not spin in the last one. */
static int poll_timeout(int64_t nanoseconds) {
    if (nanoseconds > CASYNC_MS((int64_t)INT_MAX - 1)) return -1; /* CASYNC_FOREVER too */
    return (int)((nanoseconds + CASYNC_MS(1) - 1) / CASYNC_MS(1));
}

static int64_t run(void) {
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
    int left = 5;
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    result = casync_timer_start(&loop, &ticker, CASYNC_MS(100), CASYNC_MS(100), tick, &left);
    if (result < 0) return result;
    fds[1].fd = casync_loop_fd(&loop);
    while (casync_loop_alive(&loop)) {
        if (poll(fds, 2, poll_timeout(casync_loop_timeout(&loop))) < 0) {
            if (errno == EINTR) continue;
            return -errno;
        }
        if (fds[0].revents) {
            char line[256];
            ssize_t n = read(STDIN_FILENO, line, sizeof line);
            if (n > 0)
                printf("poll: %.*s", (int)n, line);
            else
                fds[0].fd = -1; /* standard input ended: poll ignores it from now on */
        }
        if ((result = casync_run_nowait(&loop)) < 0) return result;
    }
    return 0;
}

int main(void) {
    int64_t result = run();
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "foreign_loop: %s\n", casync_strerror(result));
    return result < 0;
}
