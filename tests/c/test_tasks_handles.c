/* >> tasks: who holds a task, how it begins and ends, in which loop and process it runs. */
#include "tasks_fixture.h"

static int64_t returns_at_once(casync_task *task) {
    (void)task;
    return 9;
}

/* >> handles ---------------------------------------------------------------------------------- */

IN_TASK(handles_are_counted) {
    casync_task *task = spawn(sleeps, MILLISECONDS(5));
    PTR_EQ(casync_task_retain(task), task);
    EQ(casync_join(task), 5);
    EQ(casync_await(&task->future), 5); /* awaiting does not consume */
    casync_task_release(task);
}

IN_TASK(task_without_a_handle_goes_on_and_reports_its_failure) {
    casync_task_release(spawn(fails_after, MILLISECONDS(5)));
    casync_task_release(spawn(sleeps, MILLISECONDS(5)));
    EQ(casync_sleep(CASYNC_MS(4)), 0);
    SAID("");
    EQ(casync_sleep(CASYNC_MS(2)), 0);
    SAID("exception=-5");
}

IN_TASK(who_awaits_a_task_keeps_it) {
    casync_task *task = spawn(fails_after, MILLISECONDS(5));
    casync_task *waiter = spawn(awaits, &task->future);
    EQ(casync_sleep(0), 0);
    casync_task_release(task);
    EQ(casync_join(waiter), -EIO);
}

IN_TASK(cancelled_join_gives_the_reference_back) {
    casync_task *task = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_task_cancel(casync_current_task()), 1);
    EQ(casync_join(task), -ECANCELED); /* the loop could not be closed if there were one left */
}

TEST(a_loop_with_stackful_tasks_cannot_be_closed) {
    casync_task *task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    task = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_loop_close(&loop), CASYNC_STILL_OPEN);
    EQ(casync_run_until_complete(&task->future), 5);
    casync_task_release(task);
    close_loop();
}

TEST(spawn_refuses_what_makes_no_sense) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    casync_loop closed = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    PTR_EQ(casync_spawn(&loop, NULL, NULL), NULL);
    EQ(casync_spawn_with(&loop, &desc, &task), -EINVAL);
    desc.coroutine = sleeps;
    desc.stack_size = SIZE_MAX;
    EQ(casync_spawn_with(&loop, &desc, &task), -EINVAL);
    desc.stack_size = 0;
    EQ(casync_spawn_with(&closed, &desc, &task), -EINVAL);
    PTR_EQ(task, NULL);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(start_refuses_what_makes_no_sense) {
    casync_task task;
    casync_loop closed = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, NULL), -EINVAL);
    EQ(casync_task_start(&closed, &task, tick), -EINVAL);
    close_loop();
}

/* -- stackless tasks that are closed before they end -- */

TEST(closed_stackless_task_takes_no_further_step) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    start(a, false);
    casync_future_close(&a->stackless.future);
    turns(2);
    SAID("");
    start_at_gate(a, false);
    SAID("await=0");
    casync_future_close(&a->stackless.future);
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    turns(2);
    EQ(a->awaits, 0);
    close_loop();
}

TEST(closed_stackless_task_lets_go_of_what_it_awaits) {
    actor *a = &actors[0];
    casync_task *task;
    open_loop_and_gate();
    task = spawn(sleeps, MILLISECONDS(5));
    a->awaited[0] = &task->future;
    start(a, false);
    turns(2);
    casync_future_close(&a->stackless.future);
    casync_task_release(task);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}

TEST(closed_loop_drops_stackless_tasks) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, false);
    EQ(casync_task_set_name(a->task, "dropped"), 0);
    close_loop();
}

TEST(stackless_task_may_start_again_from_its_end) {
    actor *a = &actors[0];
    int i;
    open_loop_and_gate();
    for (i = 0; i < 3; i++) {
        memset(a, 0, sizeof *a);
        start(a, false);
        EQ(run(a), 0);
        finish(a);
    }
    close_loop();
}

static int64_t loses_its_place(casync_task *task) {
    int64_t result = 1;
    CASYNC_BEGIN(task);
    switch (result) { /* the label of the await belongs to this switch */
    case 1:
        CASYNC_YIELD(task, result);
    }
    CASYNC_END(task, result);
}
TEST(await_in_a_switch_is_an_invalid_state) {
    static casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, loses_its_place), 0);
    EQ(casync_run_until_complete(&task.future), CASYNC_INVALID_STATE);
    casync_future_close(&task.future);
    close_loop();
}

TEST(step_may_return_at_once) {
    static casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, returns_at_once), 0);
    EQ(casync_run_until_complete(&task.future), 9);
    casync_future_close(&task.future);
    close_loop();
}

static casync_task not_started;

/* A named task's context is copied for those it makes. */
static int64_t start_without_memory(casync_task *task) {
    EQ(casync_task_set_name(task, "maker"), 0);
    fail_allocation(1, 0);
    EQ(casync_task_start(&loop, &not_started, start_without_memory), -ENOMEM);
    fail_no_allocation();
    return 0;
}

TEST(task_that_could_not_be_started_may_be_closed) {
    casync_task task;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_task_start(&loop, &task, start_without_memory), 0);
    EQ(casync_run_until_complete(&task.future), 0);
    EQ(casync_task_cancel(&not_started), 0);
    casync_future_close(&not_started.future);
    casync_future_close(&task.future);
    close_loop();
}

IN_TASK(nothing_may_be_released_joined_cancelled_and_awaited) {
    casync_task_release(NULL);
    /* which says that there is none by NULL */
    casync_task_release(casync_spawn(&loop, NULL, NULL));
    PTR_EQ(casync_task_retain(NULL), NULL);
    EXPECT(casync_join(NULL) < 0);
    EXPECT(casync_await(NULL) < 0);
    EQ(casync_task_cancel(NULL), 0);
    EQ(casync_future_cancel(NULL), 0);
    casync_future_close(NULL);
}

/* >> nested loops ----------------------------------------------------------------------------- */

static int64_t runs_inside(casync_loop *where, void *arg) {
    casync_task *task;
    (void)arg;
    EXPECT(where != &loop);
    PTR_EQ(casync_get_running_loop(), where);
    EQ(casync_await(&gate), -EPERM); /* a future of the outer loop */
    task = casync_spawn(where, sleeps, MILLISECONDS(1));
    EXPECT(task);
    return casync_join(task);
}
static int64_t runs_a_loop(casync_loop *where, void *arg) {
    casync_task *self = casync_current_task();
    (void)where, (void)arg;
    EQ(casync_run(runs_inside, NULL), 1);
    PTR_EQ(casync_get_running_loop(), &loop);
    PTR_EQ(casync_current_task(), self);
    EQ(casync_run_until_idle(&loop), -EBUSY);
    return casync_sleep(CASYNC_MS(1));
}
TEST(task_may_run_another_loop) {
    casync_task *other;
    open_loop_and_gate();
    other = spawn(sleeps, MILLISECONDS(1));
    EQ(run_task(runs_a_loop, NULL), 0);
    EQ(casync_run_until_complete(&other->future), 1);
    casync_task_release(other);
    SAID("exception=-1");
    close_loop();
}

static int64_t step_runs_a_loop(casync_task *task) {
    int64_t result;
    CASYNC_BEGIN(task);
    EQ(casync_run(runs_inside, NULL), 1);
    PTR_EQ(casync_current_task(), task);
    CASYNC_YIELD(task, result);
    CASYNC_END(task, result);
}
TEST(stackless_task_may_run_another_loop) {
    casync_task task;
    open_loop_and_gate();
    EQ(casync_task_start(&loop, &task, step_runs_a_loop), 0);
    EQ(casync_run_until_complete(&task.future), 0);
    casync_future_close(&task.future);
    SAID("exception=-1");
    close_loop();
}

/* Loops in threads of their own share the process's stacks' bookkeeping. */
static int64_t spawns_many(casync_loop *where, void *arg) {
    casync_task *tasks[100];
    int i;
    (void)arg;
    for (i = 0; i < 100; i++) {
        tasks[i] = casync_spawn(where, sleeps, MILLISECONDS(i % 3));
        EXPECT(tasks[i]);
    }
    for (i = 0; i < 100; i++) EQ(casync_join(tasks[i]), i % 3);
    return 0;
}
static void *run_in_thread(void *arg) {
    (void)arg;
    EQ(casync_run(spawns_many, NULL), 0);
    return NULL;
}
TEST(loops_in_several_threads_run_tasks) {
    pthread_t threads[4];
    int i;
    for (i = 0; i < 4; i++) threads[i] = start_thread(run_in_thread, NULL);
    for (i = 0; i < 4; i++) join_thread(threads[i]);
}

TEST(loops_in_several_threads_without_guard_install) {
    pthread_t threads[4];
    int i;
    refuse_guard_install();
    for (i = 0; i < 4; i++) threads[i] = start_thread(run_in_thread, NULL);
    for (i = 0; i < 4; i++) join_thread(threads[i]);
}

/* >> fork ------------------------------------------------------------------------------------- */

static int64_t forks(casync_loop *where, void *arg) {
    casync_task *child_of_both = spawn(sleeps, MILLISECONDS(5));
    pid_t pid;
    (void)arg;
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    pid = fork_child();
    if (pid == 0) {
        EQ(casync_loop_fork(where), 0);
        EQ(casync_join(child_of_both), 5);
        return 1;
    }
    EQ(child_status(pid), 0);
    EQ(casync_join(child_of_both), 5);
    return 0;
}
TEST(tasks_go_on_in_a_forked_child) {
    if (SANITIZED_THREADS) SKIP("after a fork it takes the child's tasks for threads that race");
    open_loop(CASYNC_CLOCK_VIRTUAL);
    if (run_task(forks, NULL) == 1) {
        close_loop();
        _exit(0);
    }
    close_loop();
}

/* >> without memory --------------------------------------------------------------------------- */

/* All that tasks allocate for. The first error ends it. */
static int64_t needs_memory_in_group(casync_loop *where, void *arg) {
    casync_task_group group;
    casync_timeout limit;
    casync_task child;
    int64_t result;
    (void)where, (void)arg;
    result = casync_task_group_begin(&group);
    if (result < 0) return result;
    result = casync_timeout_begin(&limit, CASYNC_SECONDS(100));
    if (result < 0) return casync_task_group_end(&group, result);
    if (!casync_task_group_spawn(&group, sleeps, MILLISECONDS(1))) result = -ENOMEM;
    if (result == 0) result = casync_task_group_start(&group, &child, returns_at_once);
    result = casync_task_group_end(&group, result);
    return casync_timeout_end(&limit, result);
}
static int64_t needs_memory(casync_loop *where, void *arg) {
    casync_task *tasks[40];
    casync_task step;
    int64_t result = casync_context_set(&variable, values[1]);
    int i, count = 0;
    (void)arg;
    if (result < 0) return result;
    result = casync_task_start(where, &step, returns_at_once);
    if (result < 0) return result;
    result = casync_task_set_name(&step, "step");
    EXPECT(casync_await(&step.future) == 9);
    casync_future_close(&step.future);
    for (i = 0; i < 40 && result == 0; i++) {
        tasks[count] = casync_spawn(where, i % 2 ? sleeps : needs_memory_in_group, MILLISECONDS(1));
        if (tasks[count])
            count++;
        else
            result = -ENOMEM;
    }
    while (count > 0) {
        int64_t joined = casync_join(tasks[--count]);
        if (joined < 0) result = joined;
    }
    if (result == 0) result = casync_context_set(&another, values[1]);
    return result;
}
TEST(without_memory_tasks_say_so_and_lose_nothing) {
    int64_t result, n = 0;
    do {
        casync_task *task;
        open_loop(CASYNC_CLOCK_VIRTUAL);
        fail_allocation(++n, 1);
        task = casync_spawn(&loop, needs_memory, NULL);
        result = task ? casync_run_until_complete(&task->future) : -ENOMEM;
        EXPECT(result == 0 || result == -ENOMEM);
        if (task) casync_task_release(task);
        EQ(casync_run_until_idle(&loop), 0);
        close_loop();
    } while (result == -ENOMEM);
    EXPECT(n > 10);
}
IN_TASK(without_memory_nothing_waits) {
    casync_generator generator = ZERO;
    casync_task *self = casync_current_task(), *child;
    fail_allocation(1, 0);
    EQ(casync_sleep(CASYNC_SECONDS(1)), -ENOMEM); /* the timer wheel's first level */
    EQ(casync_context_set(&variable, values[1]), -ENOMEM);
    EQ(casync_sleep(0), 0);
    fail_no_allocation();
    STR_EQ((const char *)casync_context_get(&variable), "0");
    EQ(casync_context_set(&variable, values[1]), 0);
    child = spawn(sleeps, NULL); /* shares the context: now it must be copied to be changed */
    fail_allocation(1, 0);
    EQ(casync_context_set(&variable, values[2]), -ENOMEM);
    EQ(casync_task_set_name(self, "stackful tasks need no memory for a name"), 0);
    STR_EQ((const char *)casync_context_get(&variable), "1");
    EQ(casync_generator_start(&loop, &generator, NULL, NULL), -EINVAL);
    fail_no_allocation();
    EQ(casync_join(child), 0);
}

TEST(without_memory_run_says_so) {
    int64_t n = 0, result;
    do {
        memory.allocations = 0;
        fail_allocation(++n, 0);
        result = run_with_test_allocator(sleeps, MILLISECONDS(1));
    } while (result == -ENOMEM);
    EQ(result, 1);
    EXPECT(n > 2);
}
