/* >> structured concurrency: generators. */
#include "tasks_fixture.h"

static casync_generator numbers;

/* Yields 0 to 3 and returns `result`. */
static int64_t gives_numbers(casync_loop *where, void *result) {
    int i;
    (void)where;
    for (i = 0; i < 4; i++) {
        int64_t yielded;
        EQ(casync_sleep(CASYNC_MS(1)), 0);
        yielded = casync_generator_yield(&numbers, values[i]);
        if (yielded < 0) {
            say_number("cleanup", yielded);
            EQ(casync_sleep(CASYNC_MS(1)), 0);
            say(WORD("cleaned"));
            return yielded;
        }
    }
    return (intptr_t)result;
}

IN_TASK(generator_gives_values_then_ends) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    while (casync_generator_next(&numbers, &value) == 1) say(value);
    SAID("0 1 2 3");
    EQ(casync_generator_next(&numbers, &value), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_next(&numbers, &value), CASYNC_INVALID_STATE);
}

IN_TASK(generator_runs_when_it_is_asked_only) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_time(&loop), CASYNC_MS(11));
    EQ(casync_sleep(CASYNC_MS(10)), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_time(&loop), CASYNC_MS(22));
    EQ(casync_generator_close(&numbers), 0);
    SAID("cleanup=-125 cleaned");
}

IN_TASK(generator_gives_its_error_once) {
    void *value;
    int i;
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, (void *)(intptr_t)-EIO), 0);
    for (i = 0; i < 4; i++) EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_generator_next(&numbers, &value), -EIO);
    EQ(casync_generator_next(&numbers, &value), 0);
    casync_ignore(casync_generator_close(&numbers));
}

IN_TASK(generator_that_was_never_asked_is_closed_without_running) {
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_close(&numbers), 0);
    SAID("");
}

static int64_t insists(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EXPECT(casync_generator_yield(&numbers, values[0]) < 0);
    EXPECT(casync_generator_yield(&numbers, values[1]) < 0); /* nobody will ask for this one */
    return 0;
}
IN_TASK(generator_that_yields_while_it_is_closed_gets_an_error) {
    void *value;
    EQ(casync_generator_start(&loop, &numbers, insists, NULL), 0);
    EQ(casync_generator_next(&numbers, &value), 1);
    EQ(casync_generator_close(&numbers), 0);
}

static int64_t consumes(casync_loop *where, void *arg) {
    int64_t result;
    void *value = NULL;
    (void)where, (void)arg;
    result = casync_generator_next(&numbers, &value);
    say_number("next", result);
    return result;
}

IN_TASK(cancelled_consumer_cancels_the_generator) {
    casync_task *consumer;
    void *value;
    EQ(casync_generator_start(&loop, &numbers, sleeps, MILLISECONDS(1000)), 0);
    consumer = spawn(consumes, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_next(&numbers, &value), -EBUSY);
    EQ(casync_task_cancel(consumer), 1);
    EQ(casync_join(consumer), -ECANCELED);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_next(&numbers, &value), 0); /* it has ended */
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_time(&loop), CASYNC_MS(2));
    SAID("next=-125");
}

IN_TASK(generator_closed_while_it_is_asked) {
    casync_task *consumer;
    EQ(casync_generator_start(&loop, &numbers, sleeps, MILLISECONDS(1000)), 0);
    consumer = spawn(consumes, NULL);
    EQ(casync_sleep(CASYNC_MS(1)), 0);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_join(consumer), -ECANCELED);
    SAID("next=-125");
}

static int64_t closes(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_generator_close(&numbers);
}
static int64_t starts_and_consumes(casync_loop *where, void *arg) {
    EQ(casync_generator_start(where, &numbers, gives_numbers, NULL), 0);
    return consumes(where, arg);
}
IN_TASK(generator_closed_in_the_turn_in_which_it_is_first_asked) {
    casync_task *consumer = spawn(starts_and_consumes, NULL), *closer = spawn(closes, NULL);
    EQ(casync_join(closer), 0);
    EXPECT(casync_join(consumer) <= 0);
    said_size = 0;
    said[0] = 0;
}

static int64_t yields_to_nobody(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return casync_generator_yield(&numbers, NULL);
}
IN_TASK(yield_is_for_the_generator_itself) {
    EQ(casync_generator_start(&loop, &numbers, gives_numbers, NULL), 0);
    EQ(casync_generator_yield(&numbers, NULL), -EPERM);
    EQ(casync_join(spawn(yields_to_nobody, NULL)), -EPERM);
    EQ(casync_generator_close(&numbers), 0);
    EQ(casync_generator_start(&loop, &numbers, NULL, NULL), -EINVAL);
}
