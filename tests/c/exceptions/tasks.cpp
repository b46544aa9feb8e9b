/* Tasks in C++ over an implementation compiled as C: the exceptions that a task has caught are its
   own, also when it waits inside a catch block, or in a destructor while the stack is unwound. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "casync.h"
#include "test.h"

#include <exception>
#include <pthread.h>
#include <stdexcept>
#include <string>

enum { TASKS = 5, ROUNDS = 20 };

static void let_others_run() { EQ(casync_sleep(0), 0); }

/* The exception that a bare `throw;` would throw now. */
static std::string caught() {
    try {
        throw;
    } catch (const std::exception &error) {
        return error.what();
    }
}

static std::string name_of(void *arg, const char *what) {
    return std::to_string((intptr_t)arg) + " " + what;
}

/* Runs some of these side by side, each with its number. */
struct side_by_side {
    casync_coroutine coroutine;
    int count;
};

static int64_t run_side_by_side(casync_loop *loop, void *arg) {
    side_by_side *all = (side_by_side *)arg;
    casync_task *tasks[TASKS];
    for (int i = 0; i < all->count; i++) {
        tasks[i] = casync_spawn(loop, all->coroutine, (void *)(intptr_t)(i + 1));
        EXPECT(tasks[i]);
    }
    for (int i = 0; i < all->count; i++) EQ(casync_join(tasks[i]), i + 1);
    return 0;
}

static void run(casync_coroutine coroutine, int count = TASKS) {
    side_by_side all = {coroutine, count};
    EQ(casync_run(run_side_by_side, &all), 0);
    EXPECT(!std::current_exception());
    EQ(std::uncaught_exceptions(), 0);
}

/* >> catch blocks ----------------------------------------------------------------------------- */

static int64_t waits_in_a_catch_block(casync_loop *, void *arg) {
    for (int round = 0; round < ROUNDS; round++) {
        std::string mine = name_of(arg, "throws");
        try {
            throw std::runtime_error(mine);
        } catch (const std::exception &error) {
            let_others_run();
            STR_EQ(error.what(), mine.c_str());
            STR_EQ(caught().c_str(), mine.c_str());
        }
        EXPECT(!std::current_exception());
        let_others_run();
    }
    return (intptr_t)arg;
}
TEST(a_catch_block_may_wait) { run(waits_in_a_catch_block); }

/* Each waits another number of turns, so that the first to leave its catch block is not the last to
   enter it. */
static int64_t leaves_in_another_order(casync_loop *, void *arg) {
    intptr_t number = (intptr_t)arg;
    std::string mine = name_of(arg, "leaves");
    for (int round = 0; round < ROUNDS; round++) {
        try {
            throw std::runtime_error(mine);
        } catch (...) {
            for (intptr_t turn = 0; turn < (number * 7 + round) % 5 + 1; turn++) let_others_run();
            STR_EQ(caught().c_str(), mine.c_str());
        }
        EXPECT(!std::current_exception());
    }
    return number;
}
TEST(catch_blocks_may_be_left_in_any_order) { run(leaves_in_another_order); }

static int64_t throws_again(casync_loop *, void *arg) {
    for (int round = 0; round < ROUNDS; round++) {
        std::string mine = name_of(arg, "throws again");
        bool there = false;
        try {
            try {
                throw std::runtime_error(mine);
            } catch (...) {
                let_others_run();
                throw;
            }
        } catch (const std::runtime_error &error) {
            let_others_run();
            STR_EQ(error.what(), mine.c_str());
            there = true;
        }
        EXPECT(there);
    }
    return (intptr_t)arg;
}
TEST(what_was_caught_before_a_wait_can_be_thrown_again_after_it) { run(throws_again); }

static int64_t nests(casync_loop *, void *arg) {
    for (int round = 0; round < ROUNDS; round++) {
        std::string outer = name_of(arg, "outer"), inner = name_of(arg, "inner");
        try {
            throw std::runtime_error(outer);
        } catch (...) {
            let_others_run();
            try {
                let_others_run();
                throw std::logic_error(inner);
            } catch (...) {
                let_others_run();
                STR_EQ(caught().c_str(), inner.c_str());
            }
            let_others_run();
            STR_EQ(caught().c_str(), outer.c_str());
        }
        EXPECT(!std::current_exception());
    }
    return (intptr_t)arg;
}
TEST(catch_blocks_may_nest_around_waits) { run(nests); }

static int64_t keeps_an_exception(casync_loop *, void *arg) {
    std::string mine = name_of(arg, "kept");
    std::exception_ptr kept;
    try {
        throw std::runtime_error(mine);
    } catch (...) {
        let_others_run();
        kept = std::current_exception();
    }
    let_others_run();
    try {
        std::rethrow_exception(kept);
    } catch (...) {
        kept = nullptr;
        let_others_run();
        STR_EQ(caught().c_str(), mine.c_str());
    }
    return (intptr_t)arg;
}
TEST(an_exception_may_be_kept_across_waits) { run(keeps_an_exception); }

/* A task that ends in its catch block leaves nothing to the next, which gets its stack. */
static int64_t returns_in_a_catch_block(casync_loop *, void *arg) {
    EXPECT(!std::current_exception());
    try {
        throw std::runtime_error(name_of(arg, "returns"));
    } catch (...) {
        let_others_run();
        return (intptr_t)arg;
    }
}
TEST(a_task_may_return_in_a_catch_block) {
    for (int round = 0; round < ROUNDS; round++) run(returns_in_a_catch_block);
}

static int64_t is_cancelled_in_a_catch_block(casync_loop *, void *) {
    try {
        throw std::runtime_error("cancelled");
    } catch (...) {
        EQ(casync_sleep(CASYNC_SECONDS(1000)), -ECANCELED);
        STR_EQ(caught().c_str(), "cancelled");
        return -ECANCELED;
    }
}
static int64_t cancels(casync_loop *loop, void *) {
    casync_task *task = casync_spawn(loop, is_cancelled_in_a_catch_block, NULL);
    try {
        throw std::runtime_error("cancels");
    } catch (...) {
        let_others_run();
        let_others_run();
        EQ(casync_task_cancel(task), 1);
        EQ(casync_join(task), -ECANCELED);
        STR_EQ(caught().c_str(), "cancels");
    }
    return 0;
}
TEST(a_catch_block_may_be_cancelled) { EQ(casync_run(cancels, NULL), 0); }

/* >> destructors ------------------------------------------------------------------------------ */

struct waits_when_it_goes {
    int expected;
    bool *gone;
    ~waits_when_it_goes() {
        EQ(std::uncaught_exceptions(), expected);
        let_others_run();
        EQ(std::uncaught_exceptions(), expected);
        *gone = true;
    }
};

static int64_t unwinds(casync_loop *, void *arg) {
    for (int round = 0; round < ROUNDS; round++) {
        std::string mine = name_of(arg, "unwinds");
        bool first = false, second = false;
        try {
            waits_when_it_goes outer = {1, &first}, inner = {1, &second};
            let_others_run();
            throw std::runtime_error(mine);
        } catch (const std::exception &error) {
            STR_EQ(error.what(), mine.c_str());
            EQ(std::uncaught_exceptions(), 0);
        }
        EXPECT(first && second);
        let_others_run();
        EQ(std::uncaught_exceptions(), 0);
    }
    return (intptr_t)arg;
}
TEST(a_destructor_may_wait_while_the_stack_is_unwound) { run(unwinds); }

/* One that throws and catches in a destructor, while another exception is on its way. */
struct fails_when_it_goes {
    ~fails_when_it_goes() {
        EQ(std::uncaught_exceptions(), 1);
        try {
            let_others_run();
            throw std::logic_error("inner");
        } catch (...) {
            let_others_run();
            STR_EQ(caught().c_str(), "inner");
            EQ(std::uncaught_exceptions(), 1);
        }
        let_others_run();
        EQ(std::uncaught_exceptions(), 1);
    }
};
static int64_t unwinds_through_a_failure(casync_loop *, void *arg) {
    std::string mine = name_of(arg, "outer");
    try {
        fails_when_it_goes goes;
        throw std::runtime_error(mine);
    } catch (...) {
        let_others_run();
        STR_EQ(caught().c_str(), mine.c_str());
    }
    return (intptr_t)arg;
}
TEST(a_destructor_may_fail_and_wait_while_the_stack_is_unwound) { run(unwinds_through_a_failure); }

/* >> who else runs ---------------------------------------------------------------------------- */

static int64_t is_undisturbed(casync_loop *, void *arg) {
    for (int round = 0; round < ROUNDS; round++) {
        EXPECT(!std::current_exception());
        EQ(std::uncaught_exceptions(), 0);
        let_others_run();
    }
    return (intptr_t)arg;
}
static int64_t differ(casync_loop *loop, void *arg) {
    switch ((intptr_t)arg) {
    case 1:
        return waits_in_a_catch_block(loop, arg);
    case 2:
        return is_undisturbed(loop, arg);
    case 3:
        return unwinds(loop, arg);
    case 4:
        return nests(loop, arg);
    default:
        return throws_again(loop, arg);
    }
}
TEST(tasks_without_exceptions_see_none) { run(differ); }

static int calls;
static void sees_no_exception(void *) {
    EXPECT(!std::current_exception());
    EQ(std::uncaught_exceptions(), 0);
    try {
        throw std::runtime_error("callback");
    } catch (...) {
        STR_EQ(caught().c_str(), "callback");
    }
    calls++;
}
static int64_t waits_for_callbacks(casync_loop *loop, void *) {
    try {
        throw std::runtime_error("task");
    } catch (...) {
        for (int round = 0; round < ROUNDS; round++) {
            EQ(casync_call_soon(loop, NULL, sees_no_exception, NULL), 0);
            let_others_run();
            STR_EQ(caught().c_str(), "task");
        }
    }
    EQ(calls, ROUNDS);
    return 0;
}
TEST(callbacks_see_no_exception_of_a_task) { EQ(casync_run(waits_for_callbacks, NULL), 0); }

/* Whoever runs the loop is in a catch block, or the loop runs in a destructor: that is theirs
   alone. */
static int64_t is_undisturbed_below(casync_loop *loop, void *arg) {
    is_undisturbed(loop, arg);
    return waits_in_a_catch_block(loop, arg);
}
TEST(a_loop_may_run_in_a_catch_block) {
    side_by_side all = {waits_in_a_catch_block, TASKS};
    try {
        throw std::runtime_error("outside");
    } catch (...) {
        EQ(casync_run(run_side_by_side, &all), 0);
        STR_EQ(caught().c_str(), "outside");
    }
    EXPECT(!std::current_exception());
}

static int64_t runs_another_loop(casync_loop *, void *arg) {
    std::string mine = name_of(arg, "outer loop");
    try {
        throw std::runtime_error(mine);
    } catch (...) {
        let_others_run();
        EQ(casync_run(is_undisturbed_below, (void *)(intptr_t)7), 7);
        STR_EQ(caught().c_str(), mine.c_str());
        let_others_run();
        STR_EQ(caught().c_str(), mine.c_str());
    }
    return (intptr_t)arg;
}
TEST(a_task_may_run_another_loop_in_a_catch_block) { run(runs_another_loop, 2); }

static void *run_in_a_thread(void *) {
    for (int round = 0; round < ROUNDS; round++) run(differ);
    return NULL;
}
TEST(each_thread_has_its_tasks_exceptions) {
    pthread_t threads[2];
    for (pthread_t &thread : threads) EQ(pthread_create(&thread, NULL, run_in_a_thread, NULL), 0);
    for (pthread_t &thread : threads) EQ(pthread_join(thread, NULL), 0);
}
