/* Pages fetched over HTTP, all at once: a task for each, within a time limit.

   Something to fetch from:             python3 -m http.server --bind 127.0.0.1 8000
   Run it from the repository's root:   tcc -run examples/parallel_fetch.c 2 http://localhost:8000/
   ... The limit is in seconds. It prints how each page went: what failed or took too long does not
   keep the others from being fetched. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAGES = 16 };

typedef struct page {
    const char *url;
    int64_t limit; /* in nanoseconds, as all time */
    casync_task *task;
    char status[64];    /* the answer's first line */
    int64_t body_bytes; /* how much followed the header */
} page;

static int64_t ask(casync_loop *loop, casync_stream *stream, const char *url) {
    char host[64], path[256], request[512];
    casync_connect_desc desc = {.host = host, .port = 80};
    int64_t result;
    int size;
    if (sscanf(url, "http://%63[^:/]:%d%255s", host, &desc.port, path) != 3 &&
        sscanf(url, "http://%63[^:/]%255s", host, path) != 2)
        return -EINVAL;
    if ((result = casync_connect(loop, stream, &desc)) < 0) return result;
    size = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
    return casync_write_all(stream, request, (size_t)size);
}

static int64_t read_answer(casync_stream *stream, page *p) {
    char buffer[4096];
    const void *header;
    int64_t n = casync_read_until(stream, "\r\n\r\n", 4, &header);
    if (n < 0) return n;
    snprintf(p->status, sizeof p->status, "%.*s", (int)strcspn((const char *)header, "\r"),
             (const char *)header);
    while ((n = casync_read(stream, buffer, sizeof buffer)) > 0) p->body_bytes += n;
    return n;
}

/* The limit is for all that waits between begin and end; end makes -ETIMEDOUT of what it cut
   short. */
static int64_t fetch(casync_loop *loop, void *arg) {
    page *p = (page *)arg;
    casync_stream stream = {0};
    casync_timeout limit;
    int64_t result = casync_timeout_begin(&limit, p->limit);
    if (result < 0) return result;
    result = ask(loop, &stream, p->url);
    if (result >= 0) result = read_answer(&stream, p);
    result = casync_timeout_end(&limit, result);
    casync_close(&stream);
    return result;
}

static void report(const page *p, int64_t result) {
    if (result < 0)
        printf("%s: %s\n", p->url, casync_strerror(result));
    else
        printf("%s: %s, %lld bytes\n", p->url, p->status, (long long)p->body_bytes);
}

/* Cancelling the gather would cancel the fetches too, and wait for them: nothing uses our arrays
   when this returns. */
static int64_t fetch_all(casync_loop *loop, void *arg) {
    char **argv = (char **)arg, **urls = argv + 2; /* the last of which is NULL */
    page pages[MOST_PAGES] = {0};
    casync_waiter waiters[MOST_PAGES] = {0};
    int64_t result;
    int count, i;
    for (count = 0; urls[count]; count++) {
        pages[count].url = urls[count];
        pages[count].limit = CASYNC_SECONDS(atoi(argv[1]));
        pages[count].task = casync_spawn(loop, fetch, &pages[count]);
        if (!pages[count].task) break;
        waiters[count].future = &pages[count].task->future;
    }
    result = casync_gather(waiters, (size_t)count, CASYNC_RETURN_ERRORS);
    for (i = 0; i < count; i++) report(&pages[i], casync_join(pages[i].task));
    return result >= 0 && urls[count] ? -ENOMEM : result;
}

int main(int argc, char **argv) {
    int64_t result;
    if (argc < 3 || argc > 2 + MOST_PAGES || atoi(argv[1]) < 1) {
        fprintf(stderr,
                "usage: parallel_fetch seconds http://localhost:8000/ ... (1 to %d pages)\n",
                MOST_PAGES);
        return 2;
    }
    result = casync_run(fetch_all, argv);
    if (result < 0) fprintf(stderr, "parallel_fetch: %s\n", casync_strerror(result));
    return result < 0;
}
