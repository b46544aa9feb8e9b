/* A task: what drives a coroutine.

   Run it from the repository's root:   tcc -run examples/study/08_task.c

   A task is a function, called a step, that the loop calls like any other callback. It runs up to its next
   wait. There it has a future, and asks this future to call the step again. So nobody waits: the struct lies
   still until a callback picks it up.

   Here it is by hand, on casync's futures: the place as a number (page 4), the callback as a job in the
   struct. casync.h's stackless tasks are this struct and this switch, made once and for all, with
   cancellation and a result. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

typedef struct task {
    const char *name;
    int line;
    casync_job wake_up;
    casync_future result; /* who awaits the task awaits this */
} task;

static casync_loop loop;
static casync_future gate;

static int waiting;

static void open_gate(void *arg) {
    (void)arg;
    printf("the gate opens\n");
    casync_future_set_result(&gate, 1000, NULL);
}

static void step(void *arg) {
    task *t = (task *)arg;
    printf("  step of %s\n", t->name);
    switch (t->line) {
    case 0:
        printf("%s begins\n", t->name);
        t->line = 1;
        casync_call_soon(&loop, &t->wake_up, step, t); /* sleep(0): let the others run */
        return;
    case 1:
        printf("%s waits\n", t->name);
        t->line = 2;
        casync_future_add_done_callback(&gate, &t->wake_up, step, t); /* await gate */
        if (++waiting == 2) casync_call_soon(&loop, NULL, open_gate, NULL);
        return;
    case 2:
        printf("%s ends\n", t->name);
        casync_future_set_result(&t->result, casync_future_result(&gate) + t->name[0], NULL);
    }
}

static void start(task *t, const char *name) {
    memset(t, 0, sizeof *t);
    t->name = name;
    casync_future_init(&loop, &t->result);
    casync_call_soon(&loop, &t->wake_up, step, t); /* it starts in the next turn, not now */
}

int main(void) {
    static task a, b;
    int64_t first, second;
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    casync_future_init(&loop, &gate);
    start(&a, "a");
    start(&b, "b");
    printf("the tasks are made, and have not begun\n");
    first = casync_run_until_complete(&a.result);
    second = casync_run_until_complete(&b.result);
    printf("results: %d %d\n", (int)first, (int)second);
    printf("what a task costs: its struct, less than 256 bytes: %s\n", sizeof(task) < 256 ? "yes" : "no");
    casync_future_close(&gate);
    casync_future_close(&a.result);
    casync_future_close(&b.result);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
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
     what a task costs: its struct, less than 256 bytes: yes
*/
