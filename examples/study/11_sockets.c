/* Sockets and selectors: how one thread serves many.

   Run it from the repository's root:   tcc -run examples/study/11_sockets.c

   A descriptor can be told not to block (O_NONBLOCK). Then a call that would have to wait returns
   EAGAIN instead, and one needs to know when to try again. That is what poll(2) and epoll(7) are
   for: they are given any number of descriptors and wait until at least one is ready. poll is given
   the list at each call; epoll keeps it in the kernel, so that a call costs what is ready, not what
   is watched.

   "Ready" means: a read would not wait. There may be one byte only, or the end of the stream (0),
   or an error. If you do not read it all, it is ready again in the next turn ("level-triggered").
   In rare cases what was ready is so no more when you read (select(2), "BUGS"; or another process
   was faster): servers set O_NONBLOCK all the same. The short ones below do not.

   Three floors: the system calls; casync_add_reader, by which the loop does the waiting; and
   streams, which read and write by themselves and tell a protocol. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;

static void to_upper(char *text, size_t size) {
    while (size-- > 0)
        text[size] = (char)(text[size] >= 'a' && text[size] <= 'z' ? text[size] - 32 : text[size]);
}

static void ask(int fd, const char *text) {
    if (send(fd, text, strlen(text), 0) < 0 || shutdown(fd, SHUT_WR) < 0) perror("ask");
}

static void show_answer(int fd) {
    char text[64];
    ssize_t size = read(fd, text, sizeof text);
    printf("answer: %.*s\n", size < 0 ? 0 : (int)size, text);
    close(fd);
}

/* The first floor: poll(2), until all clients have gone. */
static void serve(struct pollfd *clients, nfds_t count) {
    nfds_t i, open = count;
    char text[64];
    ssize_t size;
    while (open > 0 && poll(clients, count, -1) > 0) {
        for (i = 0; i < count; i++) {
            if (!clients[i].revents) continue;
            if ((size = read(clients[i].fd, text, sizeof text)) > 0) {
                to_upper(text, (size_t)size);
                if (write(clients[i].fd, text, (size_t)size) != size) perror("write");
                continue;
            }
            close(clients[i].fd); /* the end of the stream, or an error */
            clients[i].fd = -1;   /* poll passes over negative ones */
            open--;
        }
    }
}

/* The second: the loop waits, the callback reads. */
static casync_watcher watcher;

static void readable(void *arg) {
    char text[64];
    int fd = watcher.fd;
    ssize_t size = read(fd, text, sizeof text);
    (void)arg;
    if (size > 0) {
        to_upper(text, (size_t)size);
        if (write(fd, text, (size_t)size) != size) perror("write");
        return;
    }
    casync_remove_reader(&watcher); /* before the close */
    close(fd);
}

/* The third: the stream reads, the protocol is told. At the end it closes the stream. */
static void data_received(casync_stream *stream, casync_span data) {
    const char *rest = (const char *)data.ptr, *end = rest + data.len;
    char text[64];
    size_t size;
    for (; rest < end; rest += size) { /* there may be any number of bytes */
        size = (size_t)(end - rest) < sizeof text ? (size_t)(end - rest) : sizeof text;
        memcpy(text, rest, size);
        to_upper(text, size);
        if (casync_write(stream, text, size) < 0) {
            casync_abort(stream);
            return;
        }
    }
}

static const casync_protocol protocol = {.data_received = data_received};

int main(void) {
    int pairs[4][2], i;
    char byte;
    struct pollfd clients[2];
    static casync_stream stream;
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    for (i = 0; i < 4; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]) < 0) return 1;

    if (recv(pairs[0][0], &byte, 1, MSG_DONTWAIT) < 0)
        printf("nothing to read yet: %s\n", strerror(errno));
    ask(pairs[0][0], "poll, first client");
    ask(pairs[1][0], "poll, second client");
    for (i = 0; i < 2; i++) clients[i] = (struct pollfd){pairs[i][1], POLLIN, 0};
    serve(clients, 2);
    show_answer(pairs[0][0]);
    show_answer(pairs[1][0]);

    ask(pairs[2][0], "add_reader");
    if (casync_add_reader(&loop, &watcher, pairs[2][1], readable, NULL) < 0) return 1;
    casync_run_until_idle(&loop);
    show_answer(pairs[2][0]);

    ask(pairs[3][0], "a stream");
    if (casync_stream_open(&loop, &stream, pairs[3][1], &protocol, NULL) < 0) return 1;
    casync_run_until_idle(&loop);
    show_answer(pairs[3][0]);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     nothing to read yet: Resource temporarily unavailable
     answer: POLL, FIRST CLIENT
     answer: POLL, SECOND CLIENT
     answer: ADD_READER
     answer: A STREAM
*/
