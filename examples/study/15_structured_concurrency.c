/* Structured concurrency.

   Run it from the repository's root:   tcc -run examples/study/15_structured_concurrency.c

   casync_spawn is like goto: it starts something that goes on after the function that started it
   has returned. Who waits for it? Who sees its error? Who ends it if the rest fails? When may the
   memory that it uses go? A task group ties the tasks to a block of code:

       casync_task_group_begin(&group);
       casync_task_group_spawn(&group, one, arg);
       casync_task_group_spawn(&group, two, arg);
       result = casync_task_group_end(&group, 0);      here all of them have ended

   - `end` waits for the last of them. No task outlives it, so what they use may be on the block's
     own stack, and go after it. In C that is not tidiness: it is what keeps a task out of memory
     that is gone.
   - If a task fails, the others and the block's own waits are cancelled; `end` awaits them, and
     returns that first error.
   - If the block itself fails, or is cancelled, so are its tasks.

   So a function that uses a group inside is, from outside, an ordinary function: it returns a
   result. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

typedef struct work {
    const char *name;
    int milliseconds;
    int64_t result;
} work;

static int now(casync_loop *loop) { return (int)(casync_time(loop) / CASYNC_MS(1)); }

/* When it is cancelled it cleans up, which takes it 5 ms. */
static int64_t worker(casync_loop *loop, void *arg) {
    work *w = (work *)arg;
    int64_t result = casync_sleep(CASYNC_MS(w->milliseconds));
    if (result < 0) {
        printf("  %s is cancelled, at %d\n", w->name, now(loop));
        casync_ignore(casync_sleep(CASYNC_MS(5))); /* a second request would only cut the
                                                      clean-up short */
        return result;
    }
    printf("  %s %s, at %d\n", w->name, w->result < 0 ? "fails" : "has ended", now(loop));
    return w->result;
}

static int64_t all_is_well(casync_loop *loop, void *arg) {
    work a = {"short", 10, 0}, b = {"long", 50, 0};
    casync_task_group group;
    (void)loop;
    (void)arg;
    casync_task_group_begin(&group);
    casync_task_group_spawn(&group, worker, &a);
    casync_task_group_spawn(&group, worker, &b);
    return casync_task_group_end(&group, 0);
}

static int64_t one_fails(casync_loop *loop, void *arg) {
    work a = {"sibling", 1000, 0}, b = {"bad", 20, -EIO}, body = {"body", 1000, 0};
    casync_task_group group;
    (void)arg;
    casync_task_group_begin(&group);
    casync_task_group_spawn(&group, worker, &a);
    casync_task_group_spawn(&group, worker, &b);
    return casync_task_group_end(&group, worker(loop, &body)); /* the block may wait, too */
}

static int64_t one_child(casync_loop *loop, void *arg) {
    work a = {"child", 1000, 0};
    casync_task_group group;
    (void)loop;
    (void)arg;
    casync_task_group_begin(&group);
    casync_task_group_spawn(&group, worker, &a);
    return casync_task_group_end(&group, 0);
}

static int64_t is_cancelled(casync_loop *loop, void *arg) {
    casync_task *block = casync_spawn(loop, one_child, arg);
    int64_t result = casync_sleep(CASYNC_MS(10)), ended;
    casync_task_cancel(block);
    ended = casync_join(block);
    return result < 0 ? result : ended;
}

static void run(const char *name, casync_coroutine block) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL}; /* page 12 */
    int64_t result;
    printf("%s:\n", name);
    result = casync_run_with(&desc, block, NULL);
    printf("  result: %s\n", casync_strerror(result));
}

int main(void) {
    run("all is well", all_is_well);
    run("one fails", one_fails);
    run("the block is cancelled", is_cancelled);
    return 0;
}

/* Prints:
     all is well:
       short has ended, at 10
       long has ended, at 50
       result: success
     one fails:
       bad fails, at 20
       sibling is cancelled, at 20
       body is cancelled, at 20
       result: Input/output error
     the block is cancelled:
       child is cancelled, at 10
       result: Operation canceled
*/
