/* Producers and consumers: tasks that hand jobs to each other through a queue.

   Run it from the repository's root:   tcc -run examples/producer_consumer.c
   Two producers make ten jobs, three consumers do them; when all are done the queue is shut down,
   which ends the consumers. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <stdio.h>

typedef struct job {
    const char *producer;
    int number;
} job;

static casync_queue queue;
static casync_wait_group producing;
static job jobs[2][5];

/* Puts wait while the queue is full: a producer goes no faster than the consumers. */
static int64_t produce(casync_loop *loop, void *arg) {
    job *mine = (job *)arg;
    int64_t result = 0;
    int i;
    (void)loop;
    for (i = 0; i < 5 && result >= 0; i++) {
        mine[i].producer = mine == jobs[0] ? "anna" : "ben";
        mine[i].number = i + 1;
        result = casync_queue_put(&queue, &mine[i]);
        if (result >= 0) printf("%s put job %d\n", mine[i].producer, mine[i].number);
    }
    casync_wait_group_done(&producing);
    return result;
}

static int64_t consume(casync_loop *loop, void *name) {
    void *item;
    int64_t result;
    (void)loop;
    while ((result = casync_queue_get(&queue, &item)) >= 0) {
        const job *next = (const job *)item;
        if ((result = casync_sleep(CASYNC_MS(20))) < 0) break; /* the work */
        printf("    %s did %s's job %d\n", (const char *)name, next->producer, next->number);
        casync_queue_task_done(&queue);
    }
    return result == CASYNC_QUEUE_SHUT_DOWN ? 0 : result;
}

/* All jobs were put, and then all were done. */
static int64_t see_to_the_end(void) {
    int64_t result = casync_wait_group_wait(&producing);
    if (result >= 0) result = casync_queue_join(&queue);
    casync_queue_shutdown(&queue, false);
    return result;
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_queue_desc desc = {.maxsize = 3};
    casync_task_group tasks;
    int64_t result;
    (void)arg;
    if ((result = casync_queue_init(loop, &queue, &desc)) < 0) return result;
    if ((result = casync_wait_group_add(&producing, 2)) < 0) return result;
    if ((result = casync_task_group_begin(&tasks)) < 0) return result;
    if (!casync_task_group_spawn(&tasks, produce, jobs[0]) ||
        !casync_task_group_spawn(&tasks, produce, jobs[1]) ||
        !casync_task_group_spawn(&tasks, consume, (void *)"clara") ||
        !casync_task_group_spawn(&tasks, consume, (void *)"david") ||
        !casync_task_group_spawn(&tasks, consume, (void *)"emil"))
        result = -ENOMEM;
    if (result >= 0) result = see_to_the_end();
    result = casync_task_group_end(&tasks, result);
    casync_queue_close(&queue);
    if (result >= 0) printf("all jobs are done\n");
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "producer_consumer: %s\n", casync_strerror(result));
    return result < 0;
}
