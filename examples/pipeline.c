/* A pipeline: tasks joined by channels, each of which does one thing and hands on what comes of it.
   Like `seq 10 | square | add_up`: the stages work at the same time, and the end travels from the
   first to the last.

   Run it from the repository's root:   tcc -run examples/pipeline.c
   It prints the sums of the first ten squares. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>

/* The channels are queues with room for two: put waits when one is full, so no stage runs far ahead
   of the next. The numbers travel as pointers. */
enum { NUMBERS, SQUARES, SUMS, CHANNELS };
static casync_queue channels[CHANNELS];

static int64_t put(int channel, intptr_t n) {
    return casync_queue_put(&channels[channel], (void *)n);
}

/* CASYNC_QUEUE_SHUT_DOWN when the channel is at its end, and nothing is left in it. */
static int64_t get(int channel, intptr_t *n) {
    void *item;
    int64_t result = casync_queue_get(&channels[channel], &item);
    if (result >= 0) *n = (intptr_t)item;
    return result;
}

/* What every stage ends with: no more will be put into its channel, what is in it still comes
   through. */
static int64_t end_of(int channel, int64_t result) {
    casync_queue_shutdown(&channels[channel], false);
    return result == CASYNC_QUEUE_SHUT_DOWN ? 0 : result;
}

static int64_t count(casync_loop *loop, void *limit) {
    int64_t result = 0;
    intptr_t n;
    (void)loop;
    for (n = 1; n <= *(int *)limit && result >= 0; n++) result = put(NUMBERS, n);
    return end_of(NUMBERS, result);
}

static int64_t square(casync_loop *loop, void *arg) {
    int64_t result;
    intptr_t n;
    (void)loop;
    (void)arg;
    while ((result = get(NUMBERS, &n)) >= 0)
        if ((result = put(SQUARES, n * n)) < 0) break;
    return end_of(SQUARES, result);
}

static int64_t add_up(casync_loop *loop, void *arg) {
    int64_t result;
    intptr_t n, sum = 0;
    (void)loop;
    (void)arg;
    while ((result = get(SQUARES, &n)) >= 0)
        if ((result = put(SUMS, sum += n)) < 0) break;
    return end_of(SUMS, result);
}

static int64_t print(void) {
    int64_t result;
    intptr_t n;
    while ((result = get(SUMS, &n)) >= 0) printf("%d\n", (int)n);
    return result == CASYNC_QUEUE_SHUT_DOWN ? 0 : result;
}

/* Should a stage fail, the group cancels the others: none waits for ever for its neighbour. */
static int64_t run_stages(void) {
    int limit = 10;
    casync_task_group stages;
    int64_t result = casync_task_group_begin(&stages);
    if (result < 0) return result;
    if (!casync_task_group_spawn(&stages, count, &limit) ||
        !casync_task_group_spawn(&stages, square, NULL) ||
        !casync_task_group_spawn(&stages, add_up, NULL))
        result = -ENOMEM;
    if (result >= 0) result = print();
    return casync_task_group_end(&stages, result);
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_queue_desc desc = {.maxsize = 2};
    int64_t result = 0;
    int i;
    (void)arg;
    for (i = 0; i < CHANNELS && result >= 0; i++)
        result = casync_queue_init(loop, &channels[i], &desc);
    if (result >= 0) result = run_stages();
    for (i = 0; i < CHANNELS; i++) casync_queue_close(&channels[i]);
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "pipeline: %s\n", casync_strerror(result));
    return result < 0;
}
