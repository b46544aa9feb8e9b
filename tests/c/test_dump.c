/* >> metrics & dump: names of tasks, what casync_dump says. */
#include "tasks_fixture.h"

TEST_BOTH(task_has_a_name) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    STR_EQ(casync_task_name(a->task), "task");
    EQ(casync_task_set_name(a->task, "one"), 0);
    STR_EQ(casync_task_name(a->task), "one");
    EQ(casync_task_set_name(a->task, "two"), 0);
    STR_EQ(casync_task_name(a->task), "two");
    EQ(casync_task_set_name(a->task, NULL), 0);
    STR_EQ(casync_task_name(a->task), "task");
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

static actor *named;
static void name_oneself_and_start_another(actor *a) {
    EQ(casync_task_set_name(a->task, "parent"), 0);
    start(named, named == &actors[1]);
    STR_EQ(casync_task_name(named->task), "task");
}
TEST_BOTH(name_is_not_inherited) {
    actor *a = &actors[0];
    open_loop_and_gate();
    named = stackful ? &actors[1] : &actors[2];
    a->before = name_oneself_and_start_another;
    start(a, stackful);
    EQ(casync_run_until_idle(&loop), 0);
    finish(a);
    finish(named);
    close_loop();
}

/* The dump of the loop in one string. */
static char dumped[1 << 14];
static const char *dump(void) {
    FILE *file = tmpfile();
    size_t size;
    EXPECT(file);
    EQ(casync_dump(&loop, fileno(file)), 0);
    rewind(file);
    size = fread(dumped, 1, sizeof dumped - 1, file);
    dumped[size] = 0;
    fclose(file);
    return dumped;
}

TEST(dump_tells_what_tasks_wait_for_and_who_awaits_whom) {
    casync_task *tasks[4];
    char expected[256];
    actor *a = &actors[0];
    open_loop_and_gate();
    STR_EQ(dump(), "");
    tasks[0] = spawn(sleeps, MILLISECONDS(5));
    EQ(casync_task_set_name(tasks[0], "sleeper"), 0);
    STR_EQ(dump(), "task sleeper is ready\n");
    tasks[1] = spawn(awaits, &tasks[0]->future);
    start_at_gate(a, false);
    EQ(casync_task_set_name(a->task, "stackless"), 0);
    snprintf(expected, sizeof expected,
             "task sleeper awaits sleep, 5000 us left\n"
             "task task awaits task sleeper awaits sleep, 5000 us left\n"
             "task stackless awaits future %p\n",
             (void *)&gate);
    STR_EQ(dump(), expected);
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    EXPECT(strstr(dump(), "task stackless is ready\n"));
    EQ(casync_run_until_idle(&loop), 0);
    STR_EQ(dump(), "");
    casync_task_release(tasks[0]);
    casync_task_release(tasks[1]);
    finish(a);
    close_loop();
}

static int64_t waits_for_many(casync_loop *where, void *arg) {
    casync_waiter waiters[2] = ZERO;
    (void)where, (void)arg;
    waiters[0].future = &gate;
    waiters[1].future = &actors[0].stackless.future;
    casync_ignore(casync_gather(waiters, 2, CASYNC_RETURN_ERRORS));
    return 0;
}
static int64_t shields(casync_loop *where, void *arg) {
    (void)where;
    return casync_shield((casync_future *)arg);
}
static int64_t in_group(casync_loop *where, void *arg) {
    casync_task_group group;
    (void)where, (void)arg;
    EQ(casync_task_group_begin(&group), 0);
    EXPECT(casync_task_group_spawn(&group, awaits, &gate));
    return casync_task_group_end(&group, 0);
}
IN_TASK(dump_tells_what_stands_for_several) {
    casync_task *gathers, *shielding, *grouping;
    EQ(casync_future_init(&loop, &gate), 0);
    start(&actors[0], false);
    actors[0].awaited[0] = &gate;
    gathers = spawn(waits_for_many, NULL);
    shielding = spawn(shields, &gathers->future);
    grouping = spawn(in_group, NULL);
    EQ(casync_task_set_name(gathers, "gathers"), 0);
    EQ(casync_task_set_name(shielding, "shielding"), 0);
    EQ(casync_task_set_name(grouping, "grouping"), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EXPECT(strstr(dump(), "task task runs\n"));
    EXPECT(strstr(dumped, "task gathers awaits 2 of 2 futures, task task\n"));
    EXPECT(strstr(dumped, "task shielding awaits task gathers\n"));
    EXPECT(strstr(dumped, "task grouping awaits children, task task\n"));
    EQ(casync_future_set_result(&gate, 0, NULL), 0);
    EQ(casync_join(gathers), 0);
    EQ(casync_join(shielding), 0);
    EQ(casync_join(grouping), 0);
    finish(&actors[0]);
}

IN_TASK(dump_cuts_what_is_too_long) {
    static char name[2000];
    casync_task *chain[100];
    int i;
    memset(name, 'n', sizeof name - 1);
    EQ(casync_task_set_name(casync_current_task(), name), 0);
    chain[0] = spawn(sleeps, MILLISECONDS(1));
    for (i = 1; i < 100; i++) chain[i] = spawn(awaits, &chain[i - 1]->future);
    EQ(casync_sleep(0), 0);
    EXPECT(strstr(dump(), "task nnnnnnnn"));
    EXPECT(strstr(dumped, " ...\n"));
    for (i = 100; i-- > 0;) EQ(casync_join(chain[i]), 1);
}

TEST(dump_to_a_descriptor_that_cannot_be_written_is_an_error) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_dump(&loop, -1), 0); /* no task: nothing is written */
    start_at_gate(a, false);
    EQ(casync_dump(&loop, -1), -EBADF);
    close_loop();
}

static void count_task(int kind, void *object, void *arg) {
    (void)object;
    if (kind == CASYNC_KIND_TASK) ++*(int *)arg;
}
IN_TASK(walk_visits_tasks) {
    casync_task *other = spawn(sleeps, MILLISECONDS(1));
    int count = 0;
    casync_walk(&loop, count_task, &count);
    EQ(count, 2);
    EQ(casync_join(other), 1);
}
