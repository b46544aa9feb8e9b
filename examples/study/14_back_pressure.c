/* Back-pressure.

   Run it from the repository's root:   tcc -run examples/study/14_back_pressure.c

   Whoever produces faster than somebody else consumes fills a buffer in between, and if nobody says
   stop, this buffer is all of your memory. Blocking programs have back-pressure for nothing: a full
   socket makes write(2) wait. casync_write never waits, it queues. So the writer has to listen:

   - protocols: pause_writing comes when more than the high-water mark is queued (64 KiB),
     resume_writing when it has sunk to the low-water mark. Who relays pauses the other side's
     reading in between.
   - tasks: casync_drain after each write: it returns at once below the mark. casync_write_all is
     both, and waits until nothing is queued.
   - readers: casync_pause_reading holds up the other side, through both kernels' buffers. A task
     that does not call casync_read does the same.
   - between tasks: a casync_queue with a maxsize, whose put waits while it is full.
   - threads: a casync_pool with a queue_limit, which refuses more (-ENOBUFS). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

enum { CHUNK = 100000, CHUNKS = 100, HIGH_WATER = 64 * 1024 };

static casync_loop loop;
static casync_stream writer, reader;
static bool listens, paused;
static int written;
static size_t most, arrived;
static int pauses, resumes;

static void fill(void) {
    static char chunk[CHUNK];
    while (written < CHUNKS && !(listens && paused)) {
        if (casync_write(&writer, chunk, CHUNK) != CHUNK) abort();
        written++;
        if (writer.out.size > most) most = writer.out.size; /* what is queued in our memory */
    }
    if (written == CHUNKS) casync_finish_start(&writer); /* close it, once all is sent */
}

static void pause_writing(casync_stream *stream) {
    if (stream != &writer) return;
    pauses++;
    paused = true;
}

static void resume_writing(casync_stream *stream) {
    if (stream != &writer) return;
    resumes++;
    paused = false;
    if (listens) fill();
}

static void data_received(casync_stream *stream, casync_span data) {
    (void)stream;
    arrived += data.len;
}

static const casync_protocol protocol = {
    .data_received = data_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
};

static void transfer(const char *name, bool listen) {
    listens = listen;
    paused = false;
    written = pauses = resumes = 0;
    most = arrived = 0;
    if (casync_socketpair(&loop, &writer, &reader, &protocol, NULL) < 0) abort();
    fill();
    casync_run_until_idle(&loop);
    printf("%s: %d bytes arrived\n", name, (int)arrived);
    printf("  queued was at most a chunk above the mark: %s\n",
           most <= HIGH_WATER + CHUNK ? "yes" : "no");
    printf("  queued was nearly everything: %s\n",
           most > (size_t)CHUNK * CHUNKS / 10 * 8 ? "yes" : "no");
    printf("  paused %s\n", pauses == 0 ? "never" : pauses == 1 ? "once" : "many times");
}

/* The same as a task: it looks like a blocking program. */
static int64_t writing_task(casync_loop *running, void *arg) {
    static char chunk[CHUNK];
    int64_t result = 0;
    (void)running;
    (void)arg;
    for (written = 0; written < CHUNKS && result >= 0; written++) {
        result = casync_write(&writer, chunk, CHUNK);
        if (writer.out.size > most) most = writer.out.size;
        if (result >= 0) result = casync_drain(&writer);
    }
    if (result < 0) return result;
    return casync_finish(&writer);
}

static void transfer_by_task(void) {
    most = arrived = 0;
    listens = false; /* the callbacks */
    if (casync_socketpair(&loop, &writer, &reader, &protocol, NULL) < 0) abort();
    if (casync_spawn_detached(&loop, writing_task, NULL) < 0) abort();
    casync_run_until_idle(&loop);
    printf("a task that drains: %d bytes arrived\n", (int)arrived);
    printf("  queued was at most a chunk above the mark: %s\n",
           most <= HIGH_WATER + CHUNK ? "yes" : "no");
}

/* A reader that has had enough for now. */
static casync_timer later;

static void read_on(void *arg) {
    (void)arg;
    printf("  the reader has paused; it got %d bytes, the writer is stuck: %s\n", (int)arrived,
           writer.out.size > 0 ? "yes" : "no");
    casync_resume_reading(&reader);
}

/* Between tasks. */
static int numbers[] = {0, 1, 2, 3};

static int64_t produce(casync_loop *running, void *arg) {
    casync_queue *queue = (casync_queue *)arg;
    int64_t result = 0;
    int i;
    (void)running;
    for (i = 0; i < 4 && result >= 0; i++) {
        if (casync_queue_full(queue)) printf("  the queue is full: the producer waits\n");
        result = casync_queue_put(queue, &numbers[i]);
        if (result >= 0) printf("  put %d\n", numbers[i]);
    }
    return result;
}

static int64_t consume(casync_loop *running, void *arg) {
    casync_queue *queue = (casync_queue *)arg;
    void *item;
    int64_t result = 0;
    int i;
    (void)running;
    for (i = 0; i < 4 && (result = casync_queue_get(queue, &item)) >= 0; i++)
        printf("  got %d\n", *(int *)item);
    return result;
}

static void bounded_queue(void) {
    casync_queue queue;
    casync_queue_desc desc = {.maxsize = 2};
    if (casync_queue_init(&loop, &queue, &desc) < 0) abort();
    if (casync_spawn_detached(&loop, produce, &queue) < 0) abort();
    if (casync_spawn_detached(&loop, consume, &queue) < 0) abort();
    casync_run_until_idle(&loop);
    casync_queue_close(&queue);
}

int main(void) {
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    transfer("who does not listen", false);
    transfer("who listens", true);
    transfer_by_task();

    printf("a reader that pauses:\n");
    listens = true;
    paused = false;
    written = 0;
    arrived = 0;
    if (casync_socketpair(&loop, &writer, &reader, &protocol, NULL) < 0) return 1;
    casync_pause_reading(&reader);
    fill();
    casync_call_later(&loop, &later, CASYNC_MS(20), read_on, NULL);
    casync_run_until_idle(&loop);
    printf("  in the end it got %d\n", (int)arrived);

    printf("a queue of two:\n");
    bounded_queue();
    return casync_loop_close(&loop) < 0;
}

/* In the end "put 2" is late: its item went in when 0 was got, its producer says so in the turn
   after.

   Prints:
     who does not listen: 10000000 bytes arrived
       queued was at most a chunk above the mark: no
       queued was nearly everything: yes
       paused once
     who listens: 10000000 bytes arrived
       queued was at most a chunk above the mark: yes
       queued was nearly everything: no
       paused many times
     a task that drains: 10000000 bytes arrived
       queued was at most a chunk above the mark: yes
     a reader that pauses:
       the reader has paused; it got 0 bytes, the writer is stuck: yes
       in the end it got 10000000
     a queue of two:
       put 0
       put 1
       the queue is full: the producer waits
       got 0
       got 1
       got 2
       put 2
       put 3
       got 3
*/
