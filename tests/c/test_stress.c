/* >> tasks: random schedules: tasks of both kinds are spawned, await, are cancelled and closed, a
   million in all. A seed makes each of them; it is in the test's name. */
#include "loop_fixture.h"

enum { SLOTS = 300, GATES = 8, CHILDREN = 3 };

/* A place for a task, which the driver below starts, cancels, closes and reaps. */
typedef struct slot {
    casync_task stackless; /* first: it is the task of a stackless one */
    casync_task *task;     /* NULL: the slot is free */
    int64_t number;        /* tasks await later ones only: nobody waits for ever */
    int awaited_by;        /* how many tasks await this one */
    bool waits;            /* between the beginning of an await and its end */
    /* of a stackless task: what lives across its awaits */
    int steps, choice;
    int64_t got;
    casync_timer_op op;
    casync_shielded shield;
} slot;

static slot slots[SLOTS];
/* A ring of futures. The current one is closed, the one before it was opened last. */
static casync_future gates[GATES];
static int current_gate;

static struct {
    int64_t spawned;                    /* tasks */
    int64_t awaits_begun, awaits_ended; /* by tasks in slots */
    int64_t awaits_dropped;             /* of tasks that were closed in them */
    int64_t detached_failures, reported;
    int64_t cancelled, timed_out, groups_failed; /* to see that these happen */
} counts;

static int64_t random_delay(void) { return CASYNC_US(random_below(4) * 500); }
static int64_t random_result(void) {
    return random_below(8) == 0 ? -EIO : (int64_t)random_below(100);
}
static casync_future *random_gate(void) {
    return &gates[(current_gate + GATES - (int)random_below(2)) % GATES];
}
static slot *random_slot(void) { return &slots[random_below(SLOTS)]; }

static casync_task *spawn_counted(casync_coroutine coroutine, void *arg) {
    counts.spawned++;
    return spawn(coroutine, arg);
}

/* Each await ends once for each time it began. */
static void begin_await(slot *s) {
    EXPECT(!s->waits);
    PTR_EQ(casync_current_task(), s->task);
    s->waits = true;
    counts.awaits_begun++;
}
static int64_t end_await(slot *s, int64_t result) {
    EXPECT(s->waits);
    PTR_EQ(casync_current_task(), s->task);
    s->waits = false;
    counts.awaits_ended++;
    if (result == -ECANCELED) counts.cancelled++;
    return result;
}

/* Most tasks end when they are cancelled. */
static bool gives_up(int64_t result) { return result == -ECANCELED && random_below(4) != 0; }

/* >> what stackful tasks do ------------------------------------------------------------------- */

static int64_t sleep_a_little(void) { return casync_sleep(random_delay()); }

static int64_t sleeps_a_little(casync_loop *where, void *arg) {
    int64_t slept = sleep_a_little();
    (void)where, (void)arg;
    return slept < 0 ? slept : random_result();
}

static int64_t await_gate(void) { return casync_shield(random_gate()); }

static int64_t await_later_task(slot *s) {
    slot *other = random_slot();
    int64_t result;
    if (!other->task || other->number <= s->number) return casync_sleep(0);
    other->awaited_by++;
    result = casync_await(&other->task->future);
    EXPECT(casync_future_done(&other->task->future));
    other->awaited_by--;
    return result;
}

enum { GATHER, WAIT, SELECT, WAYS };

/* Several sleeps at once; in the end nothing of them may be left, as they are in this frame. */
static int64_t await_several(int way) {
    casync_timer_op ops[CHILDREN];
    casync_waiter waiters[CHILDREN];
    int64_t result;
    int i;
    memset(waiters, 0, sizeof waiters);
    for (i = 0; i < CHILDREN; i++)
        waiters[i].future = casync_sleep_op(&loop, &ops[i], random_delay());
    if (way == GATHER)
        result = casync_gather(waiters, CHILDREN, CASYNC_FIRST_ERROR);
    else if (way == WAIT)
        result = casync_wait(waiters, CHILDREN, (int)random_below(3), random_delay());
    else
        result = casync_select(waiters, CHILDREN, random_delay());
    for (i = 0; i < CHILDREN; i++) casync_future_close(&ops[i].future);
    return result;
}

static int64_t lives_in_group(casync_loop *where, void *alive) {
    int64_t slept;
    (void)where;
    ++*(int *)alive;
    slept = sleep_a_little();
    if (slept == -ECANCELED && random_below(2)) slept = sleep_a_little(); /* cleaning up */
    --*(int *)alive;
    return slept < 0 ? slept : random_result();
}

/* No child outlives its group. */
static int64_t run_group(void) {
    casync_task_group group;
    int alive = 0, i;
    int64_t result = 0;
    EQ(casync_task_group_begin(&group), 0);
    for (i = 0; i < CHILDREN; i++)
        if (casync_task_group_spawn(&group, lives_in_group, &alive)) counts.spawned++;
    if (random_below(2)) result = sleep_a_little();
    result = casync_task_group_end(&group, result);
    EQ(alive, 0);
    EQ(group.children, 0);
    if (group.error_count > 0) counts.groups_failed++;
    memset(&group, 0xdd, sizeof group);
    return result;
}

static int64_t limit_something(void) {
    casync_timeout limit;
    int64_t result;
    EQ(casync_timeout_begin(&limit, random_delay()), 0);
    result = random_below(2) ? sleep_a_little() : run_group();
    result = casync_timeout_end(&limit, result);
    if (result == -ETIMEDOUT) EXPECT(casync_timeout_expired(&limit));
    if (result == -ETIMEDOUT) counts.timed_out++;
    memset(&limit, 0xdd, sizeof limit);
    return result;
}

static int64_t wait_for_a_task(void) {
    casync_task *task = spawn_counted(sleeps_a_little, NULL);
    int64_t result = casync_wait_for(&task->future, random_delay());
    EXPECT(casync_future_done(&task->future));
    (void)casync_future_result(&task->future);
    casync_task_release(task);
    return result;
}

static int64_t do_something(slot *s) {
    switch (random_below(10)) {
    case 0:
        return casync_sleep(0);
    case 1:
        return await_gate();
    case 2:
    case 3:
        return await_later_task(s);
    case 4:
        return await_several((int)random_below(WAYS));
    case 5:
        return run_group();
    case 6:
        return limit_something();
    case 7:
        return wait_for_a_task();
    default:
        return sleep_a_little();
    }
}

static int64_t lives(casync_loop *where, void *arg) {
    slot *s = (slot *)arg;
    int64_t steps = (int64_t)random_below(6);
    (void)where;
    while (steps-- > 0) {
        int64_t result;
        begin_await(s);
        result = end_await(s, do_something(s));
        if (gives_up(result)) return result;
    }
    return random_result();
}

/* Nobody has a handle of these. */
static int64_t lives_detached(casync_loop *where, void *arg) {
    int64_t result = sleeps_a_little(where, arg);
    if (result < 0) counts.detached_failures++;
    return result;
}
static void count_report(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where, (void)arg;
    EQ(exception->error, -EIO);
    counts.reported++;
}

/* >> what stackless tasks do ------------------------------------------------------------------ */

enum { YIELD, SLEEP, GATE, CHOICES };

static casync_future *begin_something(slot *s) {
    begin_await(s);
    s->choice = (int)random_below(CHOICES);
    if (s->choice == SLEEP) return casync_sleep_op(&loop, &s->op, random_delay());
    if (s->choice == GATE) return casync_shield_op(&s->shield, random_gate());
    return NULL;
}

static int64_t lives_stackless(casync_task *task) {
    slot *s = (slot *)(void *)task;
    CASYNC_BEGIN(task);
    for (s->steps = (int)random_below(6); s->steps > 0; s->steps--) {
        CASYNC_AWAIT(task, s->got, begin_something(s));
        if (gives_up(end_await(s, s->got))) return s->got;
    }
    CASYNC_END(task, random_result());
}

/* >> the driver ------------------------------------------------------------------------------- */

static void start(slot *s) {
    memset(s, 0, sizeof *s);
    s->number = counts.spawned;
    if (random_below(3) != 0) {
        s->task = spawn_counted(lives, s);
        return;
    }
    counts.spawned++;
    s->task = &s->stackless;
    EQ(casync_task_start(&loop, &s->stackless, lives_stackless), 0);
}

static bool is_done(const slot *s) { return casync_future_done(&s->task->future); }

/* After this whatever still uses the slot is in trouble. */
static void forget(slot *s) {
    memset(s, 0xdd, sizeof *s);
    s->task = NULL;
}

static void reap(slot *s) {
    EXPECT(!s->waits);
    (void)casync_future_result(&s->task->future);
    if (s->task == &s->stackless)
        casync_future_close(&s->stackless.future);
    else
        casync_task_release(s->task);
    forget(s);
}

/* Ends a stackless task where it is, together with what it awaits. */
static void close_early(slot *s) {
    counts.awaits_dropped += s->waits;
    casync_future_close(&s->stackless.future);
    if (s->waits && s->choice == SLEEP) casync_future_close(&s->op.future);
    if (s->waits && s->choice == GATE) casync_future_close(&s->shield.future);
    forget(s);
}

/* What happens to a slot; at the end of it all nothing new begins. */
static void visit(slot *s, bool ending) {
    if (!s->task) {
        if (!ending) start(s);
    } else if (is_done(s)) {
        if (s->awaited_by == 0) reap(s);
    } else if (ending || random_below(8) == 0) {
        EQ(casync_task_cancel(s->task), 1);
    } else if (random_below(8) == 0 && s->task == &s->stackless && s->awaited_by == 0) {
        close_early(s);
    }
}

/* Opens the current gate; one that nobody uses any more becomes new. */
static void turn_gates(void) {
    EQ(casync_future_set_result(&gates[current_gate], 0, NULL), 0);
    current_gate = (current_gate + 1) % GATES;
    EQ(casync_future_init(&loop, &gates[(current_gate + GATES / 2) % GATES]), 0);
}

static int live_slots(void) {
    int i, live = 0;
    for (i = 0; i < SLOTS; i++) live += slots[i].task != NULL;
    return live;
}

static int64_t drive(casync_loop *where, void *arg) {
    int64_t count = (intptr_t)arg;
    int i;
    (void)where;
    while (counts.spawned < count) {
        for (i = (int)random_below(SLOTS); i > 0; i--) visit(random_slot(), false);
        if (random_below(2)) casync_task_release(spawn_counted(lives_detached, NULL));
        turn_gates();
        EQ(casync_sleep(random_delay()), 0);
    }
    while (live_slots() > 0) {
        for (i = 0; i < SLOTS; i++) visit(&slots[i], true);
        turn_gates();
        EQ(casync_sleep(CASYNC_MS(1)), 0);
    }
    return casync_sleep(CASYNC_SECONDS(1)); /* those that are detached have ended, too */
}

static void stress(uint64_t seed) {
    casync_loop_desc desc = ZERO;
    int64_t count = test_quick ? 5000 : 250000;
    int i;
    random_state = seed;
    desc.clock = CASYNC_CLOCK_VIRTUAL;
    desc.exception_handler = count_report;
    open_loop_with(desc);
    for (i = 0; i < GATES; i++) EQ(casync_future_init(&loop, &gates[i]), 0);
    EQ(run_task(drive, (void *)(intptr_t)count), 0);
    EQ(counts.awaits_begun, counts.awaits_ended + counts.awaits_dropped);
    EQ(counts.reported, counts.detached_failures);
    EXPECT(counts.cancelled > 0);
    EXPECT(counts.timed_out > 0);
    EXPECT(counts.groups_failed > 0);
    EXPECT(counts.awaits_dropped > 0);
    EQ(loop.active, 0);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(seed_1) { stress(1); }
TEST(seed_2) { stress(2); }
TEST(seed_3) { stress(3); }
TEST(seed_4) { stress(4); }
