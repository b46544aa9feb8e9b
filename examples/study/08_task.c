/* A task: what drives a coroutine.

   Run it from the repository's root:   tcc -run examples/study/08_task.c

   A task is a function, called a step, that the loop calls like any other callback. It runs up to
   its next wait. There it has a future, and asks this future to call the step again. So nobody
   waits: the struct lies still until a callback picks it up.

   The same coroutine three times: by hand, its place a number (page 4) and its callback a job in
   the struct; as casync's stackless task, which is that struct and that switch made once and for
   all; and as a stackful task, an ordinary function with a stack of its own. There a step is: go
   over to that stack. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_future gate; /* what all of them await */
static int waiting;

static void open_gate(void *arg) {
    (void)arg;
    printf("the gate opens\n");
    casync_future_set_result(&gate, 1000, NULL);
}

static void one_more_waits(casync_loop *loop, const char *name) {
    printf("%s waits\n", name);
    if (++waiting == 2) casync_call_soon(loop, NULL, open_gate, NULL);
}

/* By hand. */
typedef struct by_hand {
    const char *name;
    casync_loop *loop;
    int line;
    casync_job wake_up;
    casync_future future; /* who awaits the task awaits this */
} by_hand;

static void by_hand_step(void *arg) {
    by_hand *t = (by_hand *)arg;
    printf("  step of %s\n", t->name);
    switch (t->line) {
    case 0:
        printf("%s begins\n", t->name);
        t->line = 1;
        casync_call_soon(t->loop, &t->wake_up, by_hand_step, t); /* sleep(0): let the others run */
        return;
    case 1:
        one_more_waits(t->loop, t->name);
        t->line = 2;
        casync_future_add_done_callback(&gate, &t->wake_up, by_hand_step, t); /* await gate */
        return;
    case 2:
        printf("%s ends\n", t->name);
        casync_future_set_result(&t->future, casync_future_result(&gate) + t->name[0], NULL);
    }
}

static void by_hand_start(casync_loop *loop, by_hand *t, const char *name) {
    memset(t, 0, sizeof *t);
    t->name = name;
    t->loop = loop;
    casync_future_init(loop, &t->future);
    casync_call_soon(loop, &t->wake_up, by_hand_step, t); /* it starts in the next turn, not now */
}

/* As a stackless task. */
typedef struct stackless {
    casync_task task; /* first */
    const char *name;
    int64_t result;
} stackless;

static int64_t stackless_step(casync_task *task) {
    stackless *t = (stackless *)task;
    CASYNC_BEGIN(task);
    printf("%s begins\n", t->name);
    CASYNC_YIELD(task, t->result);
    if (t->result < 0) return t->result;
    one_more_waits(task->future.loop, t->name);
    CASYNC_AWAIT(task, t->result, &gate);
    if (t->result < 0) return t->result;
    printf("%s ends\n", t->name);
    CASYNC_END(task, t->result + t->name[0]);
}

/* As a stackful task. */
static int64_t stackful(casync_loop *loop, void *arg) {
    const char *name = (const char *)arg;
    int64_t result;
    printf("%s begins\n", name);
    if ((result = casync_sleep(0)) < 0) return result;
    one_more_waits(loop, name);
    if ((result = casync_await(&gate)) < 0) return result;
    printf("%s ends\n", name);
    return result + name[0];
}

static void new_gate(casync_loop *loop, const char *name) {
    printf("%s:\n", name);
    casync_future_close(&gate);
    casync_future_init(loop, &gate);
    waiting = 0;
}

static int64_t amain(casync_loop *loop, void *arg) {
    static by_hand a, b;
    static stackless c = {.name = "c"}, d = {.name = "d"};
    casync_task *e, *f;
    int64_t first;
    (void)arg;

    new_gate(loop, "by hand");
    by_hand_start(loop, &a, "a");
    by_hand_start(loop, &b, "b");
    printf("the tasks are made, and have not begun\n");
    first = casync_await(&a.future);
    printf("results: %d %d\n", (int)first, (int)casync_await(&b.future));
    casync_future_close(&a.future);
    casync_future_close(&b.future);

    new_gate(loop, "stackless");
    casync_task_start(loop, &c.task, stackless_step);
    casync_task_start(loop, &d.task, stackless_step);
    first = casync_await(&c.task.future);
    printf("results: %d %d\n", (int)first, (int)casync_await(&d.task.future));
    casync_future_close(&c.task.future);
    casync_future_close(&d.task.future);

    new_gate(loop, "stackful");
    e = casync_spawn(loop, stackful, "e");
    f = casync_spawn(loop, stackful, "f");
    first = casync_join(e);
    printf("results: %d %d\n", (int)first, (int)casync_join(f));
    casync_future_close(&gate);
    return 0;
}

int main(void) { return casync_run(amain, NULL) < 0; }

/* Prints:
     by hand:
     the tasks are made, and have not begun
       step of a
     a begins
       step of b
     b begins
       step of a
     a waits
       step of b
     b waits
     the gate opens
       step of a
     a ends
       step of b
     b ends
     results: 1097 1098
     stackless:
     c begins
     d begins
     c waits
     d waits
     the gate opens
     c ends
     d ends
     results: 1099 1100
     stackful:
     e begins
     f begins
     e waits
     f waits
     the gate opens
     e ends
     f ends
     results: 1101 1102
*/
