/* protothreads.c - stackless tasks by hand: a switch on the line to go on at, in a queue of those
   that can run. */
#define TASK(name) static void name(void *arg)
#define TASK_END return
#define TASK_THREADS false
typedef void (*task_function)(void *arg);

#include "tasks.h"

typedef struct stepper {
    struct stepper *next;
    bool (*step)(struct stepper *s); /* false: it has ended */
    uint64_t left;
    int line;
} stepper;

static stepper *first, *last;

static void push(stepper *s) {
    s->next = NULL;
    if (first)
        last->next = s;
    else
        first = s;
    last = s;
}

static bool step(stepper *s) {
    switch (s->line) {
    case 0:
        while (s->left > 0) {
            s->left--;
            s->line = 1;
            return true;
        case 1:;
        }
    }
    return false;
}

static void stepper_start(void *memory, uint64_t steps) {
    stepper *s = memory;
    s->step = step;
    s->left = steps;
    s->line = 0;
    push(s);
}

static void steppers_run(void) {
    stepper *s;
    while ((s = first)) {
        first = s->next;
        if (s->step(s)) push(s);
    }
}

static uint64_t stepper_left(const void *memory) { return ((const stepper *)memory)->left; }

static const library lib = {
    .stepper_size = sizeof(stepper),
    .stepper_start = stepper_start,
    .steppers_run = steppers_run,
    .stepper_left = stepper_left,
};

#include "rows.h"
