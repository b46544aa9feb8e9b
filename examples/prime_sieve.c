/* A sieve of tasks: each prime is a task that lets through what it does not divide; queues join
   them.

   Run it from the repository's root:   tcc -run examples/prime_sieve.c [count]
   It prints the first primes, 100 if no other count is given; each of them costs a task, with a
   stack of its own, and a queue. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <stdio.h>
#include <stdlib.h>

/* A task of the chain: it reads numbers from the one before it. The numbers travel as pointers. */
typedef struct sieve {
    casync_queue *numbers;
    casync_queue passed; /* to the next */
    intptr_t prime;
} sieve;

static int64_t count_up(casync_loop *loop, void *queue) {
    intptr_t n;
    int64_t result = 0;
    (void)loop;
    for (n = 2; result >= 0; n++) result = casync_queue_put((casync_queue *)queue, (void *)n);
    return result;
}

static int64_t let_pass(casync_loop *loop, void *arg) {
    sieve *s = (sieve *)arg;
    void *item;
    int64_t result;
    (void)loop;
    while ((result = casync_queue_get(s->numbers, &item)) >= 0) {
        if ((intptr_t)item % s->prime == 0) continue;
        if ((result = casync_queue_put(&s->passed, item)) < 0) break;
    }
    return result;
}

/* The first number that comes out of the chain is a prime: a task for it makes the chain longer. */
static int64_t find_primes(casync_loop *loop, casync_task_group *tasks, casync_queue *first,
                           sieve *sieves, int count) {
    casync_queue_desc desc = {.maxsize = 16};
    casync_queue *numbers = first;
    int64_t result;
    int i;
    for (i = 0; i < count; i++) {
        void *item;
        if ((result = casync_queue_get(numbers, &item)) < 0) return result;
        printf("%d%s", (int)(intptr_t)item, i + 1 < count ? " " : "\n");
        sieves[i].prime = (intptr_t)item;
        sieves[i].numbers = numbers;
        if ((result = casync_queue_init(loop, &sieves[i].passed, &desc)) < 0) return result;
        if (!casync_task_group_spawn(tasks, let_pass, &sieves[i])) return -ENOMEM;
        numbers = &sieves[i].passed;
    }
    return CASYNC_QUEUE_SHUT_DOWN; /* enough: as an error it ends the group's tasks */
}

static int64_t sift(casync_loop *loop, casync_queue *first, sieve *sieves, int count) {
    casync_task_group tasks;
    int64_t result = casync_task_group_begin(&tasks);
    if (result < 0) return result;
    result = casync_task_group_spawn(&tasks, count_up, first)
                 ? find_primes(loop, &tasks, first, sieves, count)
                 : -ENOMEM;
    result = casync_task_group_end(&tasks, result);
    return result == CASYNC_QUEUE_SHUT_DOWN ? 0 : result;
}

static int64_t amain(casync_loop *loop, void *arg) {
    int i, count = *(int *)arg;
    sieve *sieves = (sieve *)calloc((size_t)count, sizeof *sieves);
    casync_queue_desc desc = {.maxsize = 16};
    casync_queue first;
    int64_t result = sieves ? casync_queue_init(loop, &first, &desc) : -ENOMEM;
    if (result >= 0) {
        result = sift(loop, &first, sieves, count);
        casync_queue_close(&first);
        for (i = 0; i < count; i++) casync_queue_close(&sieves[i].passed);
    }
    free(sieves);
    return result;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 100;
    int64_t result;
    if (count < 1) {
        fprintf(stderr, "prime_sieve: the count must be a number above 0, not %s\n", argv[1]);
        return 2;
    }
    result = casync_run(amain, &count);
    if (result < 0) fprintf(stderr, "prime_sieve: %s\n", casync_strerror(result));
    return result < 0;
}
