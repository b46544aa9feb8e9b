/* Threads, without a GIL.

   Run it from the repository's root:   tcc -run examples/study/02_threads_and_the_gil.c

   C has no lock around the whole program, as CPython has. So threads really compute at the same
   time, on as many CPUs as there are, and really meet in your data: between any two instructions,
   and even inside one that looks like one (x = x + 1 reads, adds, writes). Every access to what
   threads share needs a lock, an atomic operation, or an owner: one thread that alone may touch it.

   An event loop is such an owner. Callbacks and tasks of one loop never run at the same time and
   are never interrupted by each other, so what they share needs no lock: only what has to stay as
   it is while a task waits does (casync_lock). Other threads do not touch it. They post
   (casync_call_soon_threadsafe), and the loop's thread does it for them; or they compute, and the
   task that awaits the result does the rest (casync_run_in_executor). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

typedef void *(*thread_function)(void *);

static void *compute(void *arg) {
    volatile int i;
    (void)arg;
    for (i = 0; i < 80000000; i++) continue;
    return NULL;
}

static int now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int)(t.tv_sec % 100000 * 1000 + t.tv_nsec / 1000000);
}

static void two_threads(thread_function function) {
    pthread_t a, b;
    if (pthread_create(&a, NULL, function, NULL) != 0 ||
        pthread_create(&b, NULL, function, NULL) != 0)
        abort();
    pthread_join(a, NULL);
    pthread_join(b, NULL);
}

/* Two customers pay in 1 each. There should be 2 then. */
static int balance;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both_have_read;

static void *pay_in_carelessly(void *arg) {
    int old = balance;
    (void)arg;
    pthread_barrier_wait(&both_have_read); /* the unlucky moment, made certain */
    balance = old + 1;
    return NULL;
}

static void *pay_in_with_a_lock(void *arg) {
    (void)arg;
    pthread_mutex_lock(&mutex);
    balance = balance + 1;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static casync_loop loop;

static void pay_in(void *arg) { /* runs in the loop's thread, whoever posted it */
    (void)arg;
    balance = balance + 1;
    if (balance == 2) casync_stop(&loop);
}

static void *post(void *arg) {
    (void)arg;
    casync_call_soon_threadsafe(&loop, NULL, pay_in, NULL);
    return NULL;
}

static int64_t earn(void *arg, void **ptr) { /* runs in a thread of the loop's pool */
    (void)arg;
    (void)ptr;
    return 1;
}

static int64_t pay_in_as_task(casync_loop *running, void *arg) {
    int64_t earned = casync_run_in_executor(NULL, earn, arg, NULL, NULL);
    (void)running;
    if (earned > 0) balance = balance + (int)earned; /* back in the loop's thread */
    return earned;
}

int main(void) {
    int i, start = now_ms();
    compute(NULL);
    compute(NULL);
    printf("compute twice, one after the other: %d ms\n", now_ms() - start);
    start = now_ms();
    two_threads(compute);
    printf("compute twice, in two threads: %d ms\n", now_ms() - start);

    if (pthread_barrier_init(&both_have_read, NULL, 2) != 0) return 1;
    two_threads(pay_in_carelessly);
    printf("two threads paid in 1 each: %d\n", balance);
    balance = 0;
    two_threads(pay_in_with_a_lock);
    printf("with a lock: %d\n", balance);

    balance = 0;
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    two_threads(post);
    casync_run_forever(&loop);
    printf("posted to a loop, which owns the balance: %d\n", balance);
    balance = 0;
    for (i = 0; i < 2; i++)
        if (casync_spawn_detached(&loop, pay_in_as_task, NULL) < 0) return 1;
    casync_run_until_idle(&loop);
    printf("earned in threads, paid in by tasks: %d\n", balance);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     compute twice, one after the other: 132 ms
     compute twice, in two threads: 67 ms
     two threads paid in 1 each: 1
     with a lock: 2
     posted to a loop, which owns the balance: 2
     earned in threads, paid in by tasks: 2
*/
