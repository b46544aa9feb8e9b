/* >> timer wheel: what a timer promises, and the wheel against a model that is a sorted list. */
#include "loop_fixture.h"

/* >> timers ----------------------------------------------------------------------------------- */

static void advance(int64_t nanoseconds) {
    EQ(casync_clock_advance(&loop, nanoseconds), 0);
    EQ(casync_run_nowait(&loop), 0);
}

TEST(timers_run_in_the_order_of_their_deadlines) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(3), say, WORD("3s")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1), say, WORD("1ms")), 0);
    EQ(casync_call_at(&loop, NULL, CASYNC_MS(2), say, WORD("2ms")), 0);
    EQ(casync_call_later(&loop, NULL, 1, say, WORD("1ns")), 0);
    EQ(casync_call_later(&loop, NULL, CASYNC_MS(1) + 1, say, WORD("1ms+1")), 0);
    advance(CASYNC_SECONDS(3));
    SAID("1ns 1ms 1ms+1 2ms 3s");
    close_loop();
}

TEST(equal_deadlines_are_first_come_first_served) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(5), say, WORD("1")), 0);
    advance(CASYNC_SECONDS(1));
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(5), say, WORD("2")), 0);
    advance(CASYNC_SECONDS(4) - 10);
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(5), say, WORD("3")), 0);
    advance(9);
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(5), say, WORD("4")), 0);
    SAID("");
    advance(1);
    SAID("1 2 3 4");
    close_loop();
}

TEST(a_timer_is_never_early) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, NULL, CASYNC_SECONDS(100), say, WORD("now")), 0);
    advance(CASYNC_SECONDS(100) - 1);
    SAID("");
    advance(1);
    SAID("now");
    close_loop();
}

static int64_t due;
static int expired;
static void check_not_early(void *arg) {
    EXPECT(casync_time(&loop) >= ((casync_timer *)arg)->deadline);
    EXPECT(((casync_timer *)arg)->deadline >= due);
    due = ((casync_timer *)arg)->deadline;
    expired++;
}

TEST(real_timers_are_not_early_and_in_order) {
    static casync_timer timers[200];
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 200; i++)
        EQ(casync_call_later(&loop, &timers[i], CASYNC_US(random_below(5000)), check_not_early,
                             &timers[i]),
           0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(expired, 200);
    close_loop();
}

TEST(overdue_timers_run_in_order_in_the_next_turn) {
    open_loop(CASYNC_CLOCK_MANUAL);
    advance(CASYNC_SECONDS(10));
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(2), say, WORD("2s")), 0);
    EQ(casync_call_at(&loop, NULL, CASYNC_SECONDS(1), say, WORD("1s")), 0);
    EQ(casync_call_later(&loop, NULL, 0, say, WORD("now")), 0);
    EQ(casync_call_later(&loop, NULL, -CASYNC_SECONDS(9), say, WORD("1s-too")), 0);
    EQ(casync_call_later(&loop, NULL, INT64_MIN, say, WORD("first")), 0);
    EQ(casync_call_at(&loop, NULL, -7, say, WORD("first-too")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("first first-too 1s 1s-too 2s now");
    close_loop();
}

TEST(for_ever_saturates) {
    casync_timer a = ZERO, b = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    advance(CASYNC_SECONDS(10));
    EQ(casync_call_later(&loop, &a, CASYNC_FOREVER, never, NULL), 0);
    EQ(casync_call_at(&loop, &b, CASYNC_FOREVER, never, NULL), 0);
    EQ(a.deadline, CASYNC_FOREVER);
    EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
    advance(CASYNC_SECONDS(1000000000));
    EQ(casync_timer_stop(&a), 1);
    EQ(casync_timer_stop(&b), 1);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(stop_says_whether_the_timer_was_started) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_stop(&timer), 0);
    EQ(casync_call_later(&loop, &timer, 5, never, NULL), 0);
    EQ(casync_timer_stop(&timer), 1);
    EQ(casync_timer_stop(&timer), 0);
    advance(10);
    EQ(casync_call_later(&loop, &timer, 5, say, WORD("again")), 0);
    advance(10);
    EQ(casync_timer_stop(&timer), 0);
    SAID("again");
    close_loop();
}

static casync_timer one, two, three;

static void stop_two_and_three(void *arg) {
    EQ(casync_timer_stop(&two), 1);
    EQ(casync_timer_stop(&three), 1);
    EQ(casync_timer_stop(&one), 0);
    say(arg);
}

TEST(a_callback_may_stop_timers_that_are_due_in_its_turn) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &one, 5, stop_two_and_three, WORD("one")), 0);
    EQ(casync_call_later(&loop, &two, 5, never, NULL), 0);
    EQ(casync_call_later(&loop, &three, 6, never, NULL), 0);
    advance(10);
    SAID("one");
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

static void move_two(void *arg) {
    EQ(casync_timer_start(&loop, &two, 5, 0, say, WORD("moved")), 0);
    say(arg);
}

TEST(a_callback_may_move_a_timer_that_is_due_in_its_turn) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &one, 5, move_two, WORD("one")), 0);
    EQ(casync_call_later(&loop, &two, 5, never, NULL), 0);
    advance(10);
    SAID("one");
    EQ(two.deadline, 15);
    advance(5);
    SAID("moved");
    close_loop();
}

static void free_timer(void *arg) {
    free(arg);
    say(WORD("freed"));
}

TEST(a_timer_may_free_itself) {
    casync_timer *timer = (casync_timer *)calloc(1, sizeof *timer);
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, timer, 5, free_timer, timer), 0);
    advance(5);
    SAID("freed");
    close_loop();
}

static void start_one_again(void *arg) {
    say(arg);
    if (++expired < 3) EQ(casync_call_later(&loop, &one, 5, start_one_again, arg), 0);
}

TEST(a_timer_may_start_itself_again) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_call_later(&loop, &one, 5, start_one_again, WORD("tick")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_time(&loop), 15);
    SAID("tick tick tick");
    close_loop();
}

TEST(a_started_timer_cannot_be_called_again) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &timer, 5, say, WORD("first")), 0);
    EQ(casync_call_later(&loop, &timer, 1, never, NULL), -EALREADY);
    EQ(casync_call_at(&loop, &timer, 1, never, NULL), -EALREADY);
    EQ(timer.deadline, 5);
    advance(5);
    SAID("first");
    close_loop();
}

TEST(bad_arguments_change_nothing) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &timer, 5, NULL, NULL), -EINVAL);
    EQ(casync_call_at(&loop, NULL, 5, NULL, NULL), -EINVAL);
    EQ(casync_timer_start(&loop, &timer, 5, 0, NULL, NULL), -EINVAL);
    EQ(casync_timer_start(&loop, &timer, 5, -1, never, NULL), -EINVAL);
    EQ(casync_timer_again(&timer), -EINVAL);
    EQ(casync_timer_remaining(&timer), CASYNC_INVALID_STATE);
    EXPECT(!casync_loop_alive(&loop));

    EQ(casync_call_later(&loop, &timer, 5, say, WORD("kept")), 0);
    EQ(casync_timer_start(&loop, &timer, 1, -1, never, NULL), -EINVAL);
    EQ(casync_timer_start(&loop, &timer, 1, 0, NULL, NULL), -EINVAL);
    EQ(casync_timer_again(&timer), -EINVAL);
    EQ(timer.deadline, 5);
    advance(5);
    SAID("kept");
    close_loop();
}

TEST(remaining_counts_down_to_zero) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &timer, 10, do_nothing, NULL), 0);
    EQ(casync_timer_remaining(&timer), 10);
    EQ(casync_clock_advance(&loop, 4), 0);
    EQ(casync_timer_remaining(&timer), 6);
    EQ(casync_clock_advance(&loop, 40), 0);
    EQ(casync_timer_remaining(&timer), 0);
    EQ(casync_run_nowait(&loop), 0);
    EQ(casync_timer_remaining(&timer), CASYNC_INVALID_STATE);
    close_loop();
}

/* >> repeating timers ------------------------------------------------------------------------- */

static void say_deadline(void *arg) {
    casync_timer *timer = (casync_timer *)arg;
    say_number("at", casync_time(&loop));
    say_number("next", timer->deadline);
}

TEST(a_repeating_timer_does_not_drift) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_start(&loop, &one, 10, 100, say_deadline, &one), 0);
    EQ(one.repeat, 100);
    advance(10);
    SAID("at=10 next=110");
    advance(105);
    SAID("at=115 next=210");
    advance(95);
    SAID("at=210 next=310");
    EQ(casync_timer_stop(&one), 1);
    advance(1000);
    close_loop();
}

TEST(missed_periods_are_skipped) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_start(&loop, &one, 10, 100, say_deadline, &one), 0);
    advance(10 + 350);
    SAID("at=360 next=410");
    advance(50);
    SAID("at=410 next=510");
    close_loop();
}

static void stop_itself(void *arg) {
    EQ(casync_timer_stop(&one), 1);
    say(arg);
}

TEST(a_repeating_timer_may_stop_itself) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(casync_timer_start(&loop, &one, 10, 10, stop_itself, WORD("once")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("once");
    EQ(casync_time(&loop), 10);
    close_loop();
}

TEST(again_restarts_the_period_from_now) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_start(&loop, &one, 10, 100, say_deadline, &one), 0);
    advance(5);
    EQ(casync_timer_again(&one), 0);
    EQ(one.deadline, 105);
    advance(5);
    SAID("");
    advance(95);
    SAID("at=105 next=205");
    EQ(casync_timer_stop(&one), 1);
    EQ(casync_timer_again(&one), 0);
    EQ(one.deadline, 205);
    close_loop();
}

TEST(start_moves_a_started_timer) {
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_start(&loop, &one, 10, 100, never, NULL), 0);
    EQ(casync_timer_start(&loop, &one, 20, 0, say, WORD("moved")), 0);
    EQ(one.repeat, 0);
    advance(10);
    advance(10);
    SAID("moved");
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

/* >> memory ----------------------------------------------------------------------------------- */

TEST(without_memory_for_a_level_start_fails_and_changes_nothing) {
    static const int64_t delays[] = {
        1, 100, CASYNC_US(100), CASYNC_MS(100), CASYNC_SECONDS(100), CASYNC_FOREVER};
    casync_timer timer = ZERO, kept = ZERO;
    int64_t n;
    size_t i;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &kept, 1, say, WORD("kept")), 0);
    for (i = 1; i < sizeof delays / sizeof *delays; i++) {
        for (n = 1;; n++) {
            int64_t result;
            fail_allocation(n, 0);
            result = casync_call_later(&loop, &timer, delays[i], never, NULL);
            fail_no_allocation();
            if (result == 0) break;
            EQ(result, -ENOMEM);
            EQ(casync_timer_stop(&timer), 0);
            fail_allocation(1, 0); /* what n allocations gave is there to stay */
            EQ(casync_timer_start(&loop, &kept, delays[i], 0, never, NULL), -ENOMEM);
            fail_no_allocation();
            EQ(kept.deadline, 1);
            EXPECT(n < 100);
        }
        EQ(casync_timer_stop(&timer), 1);
    }
    advance(1);
    SAID("kept");
    close_loop();
}

TEST(pooled_timers_fail_cleanly_without_memory) {
    int64_t n;
    for (n = 1;; n++) {
        int64_t result;
        open_loop(CASYNC_CLOCK_MANUAL);
        fail_allocation(n, 1);
        result = casync_call_later(&loop, NULL, CASYNC_SECONDS(1), say, WORD("ran"));
        fail_no_allocation();
        advance(CASYNC_SECONDS(1));
        if (result == 0) break;
        EQ(result, -ENOMEM);
        close_loop();
    }
    EXPECT(n > 1);
    SAID("ran");
    close_loop();
}

TEST(levels_are_allocated_once) {
    int64_t allocations;
    int i;
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_call_later(&loop, &one, CASYNC_SECONDS(100), never, NULL), 0);
    allocations = memory.allocations;
    for (i = 0; i < 1000; i++) {
        EQ(casync_timer_start(&loop, &two, (int64_t)random_below(CASYNC_SECONDS(1)), 0, do_nothing,
                              NULL),
           0);
        advance((int64_t)random_below(CASYNC_MS(1)));
    }
    EQ(memory.allocations, allocations);
    close_loop();
}

TEST(sub_millisecond_waits_are_real) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, &one, CASYNC_US(50), check_not_early, &one), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(expired, 1);
    close_loop();
}

/* >> the wheel against a model ---------------------------------------------------------------- */

/* The model: started timers, in an array that is kept sorted by (deadline, order of start). */
#define MODEL_TIMERS 300

typedef struct model_timer {
    casync_timer timer;
    int64_t deadline;
    uint64_t order;
    bool started;
} model_timer;

static model_timer timers[MODEL_TIMERS];
static model_timer *sorted[MODEL_TIMERS];
static int sorted_count;
static uint64_t started_count;
static int64_t model_now, model_calls;

static bool before(const model_timer *a, const model_timer *b) {
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

static void model_remove(model_timer *timer) {
    int i = 0;
    while (sorted[i] != timer) i++;
    sorted_count--;
    memmove(&sorted[i], &sorted[i + 1], (size_t)(sorted_count - i) * sizeof *sorted);
    timer->started = false;
}

static void model_insert(model_timer *timer, int64_t deadline) {
    int i = sorted_count++;
    timer->deadline = deadline < 0 ? 0 : deadline;
    timer->order = started_count++;
    timer->started = true;
    while (i > 0 && before(timer, sorted[i - 1])) {
        sorted[i] = sorted[i - 1];
        i--;
    }
    sorted[i] = timer;
}

static void random_operation(void);

/* Each call must be the model's first, and due. Now and then it operates on others. */
static void model_called(void *arg) {
    model_timer *timer = (model_timer *)arg;
    EXPECT(sorted_count > 0);
    PTR_EQ(sorted[0], timer);
    EXPECT(timer->deadline <= casync_time(&loop));
    model_calls++;
    model_remove(timer);
    if (timer->timer.repeat) {
        int64_t missed = (casync_now(&loop) - timer->deadline) / timer->timer.repeat;
        model_insert(timer, timer->deadline + (missed + 1) * timer->timer.repeat);
        EQ(timer->timer.deadline, timer->deadline);
    }
}

/* Short delays mostly, some of every size, many equal. */
static int64_t random_delay(void) {
    uint64_t bits = random_below(4) ? random_below(24) : random_below(44);
    int64_t delay = (int64_t)random_below((uint64_t)1 << bits);
    if (random_below(50) == 0) return -delay;
    return random_below(3) ? delay : delay / 1024 * 1024;
}

static void start_random(model_timer *timer) {
    int64_t delay = random_delay(),
            repeat = random_below(10) ? 0 : 1 + (int64_t)random_below(1000000);
    if (timer->started && random_below(2)) {
        EQ(casync_call_later(&loop, &timer->timer, delay, model_called, timer), -EALREADY);
        return;
    }
    if (timer->started) model_remove(timer);
    EQ(casync_timer_start(&loop, &timer->timer, delay, repeat, model_called, timer), 0);
    model_insert(timer, casync_time(&loop) + delay);
    EQ(timer->timer.deadline, timer->deadline);
}

static void stop_random(model_timer *timer) {
    EQ(casync_timer_stop(&timer->timer), timer->started ? 1 : 0);
    if (timer->started) model_remove(timer);
}

static void again_random(model_timer *timer) {
    if (timer->timer.repeat == 0) {
        EQ(casync_timer_again(&timer->timer), -EINVAL);
        return;
    }
    if (timer->started) model_remove(timer);
    EQ(casync_timer_again(&timer->timer), 0);
    model_insert(timer, casync_time(&loop) + timer->timer.repeat);
}

static void random_operation(void) {
    model_timer *timer = &timers[random_below(MODEL_TIMERS)];
    switch (random_below(8)) {
    case 0:
    case 1:
        stop_random(timer);
        break;
    case 2:
        again_random(timer);
        break;
    default:
        start_random(timer);
        break;
    }
}

/* A turn of the loop at a time; nothing that is due may be left. */
static void check_turn(void) {
    EQ(casync_run_nowait(&loop), 0);
    if (sorted_count > 0) EXPECT(sorted[0]->deadline > casync_time(&loop));
    EXPECT(casync_loop_alive(&loop) == (sorted_count > 0));
}

static int model_operations(void) { return test_quick ? 20000 : 3000000; }

TEST(the_wheel_is_a_sorted_list) {
    int i;
    open_loop(CASYNC_CLOCK_MANUAL);
    for (i = 0; i < model_operations(); i++) {
        random_operation();
        if (random_below(8)) continue;
        EQ(casync_clock_advance(&loop, llabs(random_delay())), 0);
        check_turn();
    }
    EXPECT(model_calls > 1000);
    close_loop();
}

TEST(the_wheel_is_a_sorted_list_over_all_of_time) {
    int i;
    open_loop(CASYNC_CLOCK_MANUAL);
    for (i = 0; i < model_operations() / 10; i++) {
        model_timer *timer = &timers[random_below(MODEL_TIMERS)];
        int64_t when = (int64_t)(random_number() / 2 >> random_below(63));
        if (timer->started) stop_random(timer);
        if (casync_time(&loop) < INT64_MAX / 2) EQ(casync_clock_advance(&loop, when / 4096), 0);
        EQ(casync_call_at(&loop, &timer->timer, when, model_called, timer), 0);
        model_insert(timer, when);
        check_turn();
    }
    close_loop();
}

/* The virtual clock stops at true deadlines alone: one jump is exactly to the model's next. */
TEST(virtual_time_jumps_exactly_to_the_next_deadline) {
    int i;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (i = 0; i < model_operations() / 10; i++) {
        int operations = (int)random_below(10);
        while (operations-- > 0) random_operation();
        EQ(casync_run_nowait(&loop), 0);
        if (sorted_count == 0) continue;
        model_now = sorted[0]->deadline;
        EQ(casync_run_once(&loop), 0);
        EQ(casync_time(&loop), model_now);
    }
    close_loop();
}

/* What hosts are told may be early, never late. */
TEST(the_hosts_timeout_is_never_after_the_next_deadline) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < model_operations() / 10; i++) {
        model_timer *timer = &timers[random_below(MODEL_TIMERS)];
        int64_t now = casync_time(&loop), when = now + CASYNC_SECONDS(1000) + llabs(random_delay());
        stop_random(timer);
        if (random_below(3) == 0) {
            EQ(casync_call_at(&loop, &timer->timer, when, never, NULL), 0);
            model_insert(timer, when);
        }
        if (sorted_count == 0)
            EQ(casync_loop_timeout(&loop), CASYNC_FOREVER);
        else
            EXPECT(casync_loop_timeout(&loop) <= sorted[0]->deadline - now);
    }
    close_loop();
}

TEST(a_timer_that_cannot_be_started_stays_as_it_was) {
    casync_timer timer = ZERO;
    const int64_t far_away = CASYNC_SECONDS(100000000); /* on a level that is not there */
    open_loop(CASYNC_CLOCK_MANUAL);
    EQ(casync_timer_start(&loop, &timer, CASYNC_MS(5), CASYNC_MS(5), say, WORD("tick")), 0);
    advance(CASYNC_MS(5));
    SAID("tick");
    EQ(casync_timer_stop(&timer), 1);
    fail_allocation(1, 0);
    EQ(casync_call_later(&loop, &timer, far_away, never, NULL), -ENOMEM);
    EQ(casync_call_at(&loop, &timer, far_away, never, NULL), -ENOMEM);
    EQ(casync_timer_start(&loop, &timer, far_away, 1, never, NULL), -ENOMEM);
    fail_no_allocation();
    EQ(timer.repeat, CASYNC_MS(5));
    EQ(timer.deadline, CASYNC_MS(10));
    EQ(casync_timer_again(&timer), 0);
    advance(CASYNC_MS(5));
    SAID("tick");
    EQ(casync_timer_stop(&timer), 1);
    close_loop();
}
