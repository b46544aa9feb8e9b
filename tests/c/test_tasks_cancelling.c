/* >> tasks: a request to cancel is heard once, by the next await, and may be caught. */
#include "tasks_fixture.h"

TEST_BOTH(cancelled_task_ends) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    EXPECT(!casync_future_done(&a->task->future)); /* it hears of it in its turn */
    EQ(a->task->cancel_requests, 1);
    EQ(run(a), -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    EQ(casync_task_cancel(a->task), 0);
    EQ(casync_future_cancel(&a->task->future), 0);
    finish(a);
    close_loop();
}

TEST_BOTH(task_cancelled_before_it_ran_ends_without_running) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = say_number_of_await;
    start(a, stackful);
    EQ(casync_future_cancel(&a->task->future), 1); /* the same as casync_task_cancel */
    EQ(run(a), -ECANCELED);
    SAID("");
    finish(a);
    close_loop();
}

TEST_BOTH(task_may_catch_its_cancellation_and_return) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->goes_on = true;
    a->result = 42;
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), 42);
    EQ(a->got[0], -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_DONE);
    finish(a);
    close_loop();
}

/* A task that is cancelled while it waits at the gate, and then awaits `next` all the same. */
static actor *cancel_at_gate(casync_future *next, bool stackful) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_init(&loop, next), 0);
    a->goes_on = true;
    a->count = 2;
    a->awaited[1] = next;
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    return a;
}

TEST_BOTH(task_is_cancelled_once_for_a_request) {
    casync_future next;
    actor *a = cancel_at_gate(&next, stackful);
    turns(3);
    EQ(next.state, CASYNC_FUTURE_PENDING);
    EQ(casync_future_set_result(&next, 42, NULL), 0);
    EQ(run(a), 42);
    finish(a);
    close_loop();
}

TEST_BOTH(request_between_two_turns_waits_for_the_next_await) {
    casync_future next;
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_init(&loop, &next), 0);
    a->count = 2;
    a->awaited[1] = &next;
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 7, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->got[0], 7); /* what was done is not lost */
    EQ(a->got[1], -ECANCELED);
    EQ(next.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(request_is_kept_across_awaits_that_do_not_wait) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->count = 4;
    a->awaited[1] = a->awaited[2] = &gate;
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 7, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->got[2], 7);
    EQ(a->got[3], -ECANCELED); /* a turn */
    finish(a);
    close_loop();
}

static void cancel_oneself(actor *a) { EQ(casync_task_cancel(a->task), 1); }

TEST_BOTH(task_that_cancels_itself_is_cancelled_in_its_next_await) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    start(a, stackful);
    EQ(run(a), -ECANCELED);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(task_that_cancels_itself_at_its_end_is_cancelled) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_set_result(&gate, 12, NULL), 0);
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    start(a, stackful);
    EQ(run(a), -ECANCELED);
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(failure_is_not_hidden_by_a_request_to_cancel) {
    actor *a = &actors[0];
    open_loop_and_gate();
    EQ(casync_future_set_result(&gate, 12, NULL), 0);
    a->before = cancel_oneself;
    a->awaited[0] = &gate;
    a->result = -EIO;
    start(a, stackful);
    EQ(run(a), -EIO);
    EQ(a->task->future.state, CASYNC_FUTURE_FAILED);
    finish(a);
    close_loop();
}

TEST_BOTH(cancel_ends_a_turn_of_waiting) {
    actor *a = &actors[0];
    open_loop_and_gate();
    a->count = 3;
    start(a, stackful);
    turns(1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    EQ(a->awaits, 1);
    finish(a);
    close_loop();
}

TEST_BOTH(cancelling_both_the_future_and_the_task) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_cancel(&gate), 1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

/* A chain of tasks is cancelled at its far end, and hears of it one after the other. */
static void cancel_chain(bool stackful, bool inner_stackful) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, inner_stackful);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    turns(1);
    EQ(casync_task_cancel(outer->task), 1);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    EQ(outer->task->cancel_requests, 1);
    EQ(inner->task->cancel_requests, 1);
    EQ(run(outer), -ECANCELED);
    EQ(run(inner), -ECANCELED);
    finish(outer);
    finish(inner);
    close_loop();
}
TEST_BOTH(cancel_reaches_a_stackful_task_that_is_awaited) { cancel_chain(stackful, true); }
TEST_BOTH(cancel_reaches_a_stackless_task_that_is_awaited) { cancel_chain(stackful, false); }

TEST_BOTH(inner_task_that_catches_keeps_the_outer_one_going) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    inner->goes_on = true;
    inner->result = 3;
    start_at_gate(inner, stackful);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    turns(1);
    EQ(casync_task_cancel(outer->task), 1);
    EQ(run(outer), 3);
    finish(outer);
    finish(inner);
    close_loop();
}

/* The request is pending when the await begins: it goes to the awaited task at once. */
TEST_BOTH(pending_request_cancels_the_task_that_is_awaited_next) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, stackful);
    outer->before = cancel_oneself;
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    EQ(run(outer), -ECANCELED);
    EQ(run(inner), -ECANCELED);
    EQ(gate.state, CASYNC_FUTURE_CANCELLED);
    finish(outer);
    finish(inner);
    close_loop();
}

/* Those who await each other wait for ever; but they can be cancelled. */
TEST_BOTH(tasks_that_await_each_other_can_be_cancelled) {
    actor *a = &actors[0], *b = &actors[1], *before_them = &actors[2];
    open_loop_and_gate();
    a->awaited[0] = b->awaited[0] = &gate;
    start(a, stackful);
    start(b, stackful);
    a->awaited[0] = &b->task->future;
    b->awaited[0] = &a->task->future;
    before_them->awaited[0] = &a->task->future;
    start(before_them, stackful);
    turns(1);
    EQ(casync_task_cancel(before_them->task), 1);
    EQ(run(before_them), -ECANCELED);
    EQ(run(a), -ECANCELED);
    EQ(run(b), -ECANCELED);
    finish(a);
    finish(b);
    finish(before_them);
    close_loop();
}

TEST_BOTH(task_whose_future_is_closed_is_cancelled) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    casync_future_close(&gate);
    memset(&gate, 0xdd, sizeof gate);
    EQ(run(a), -ECANCELED);
    finish(a);
    close_loop();
}

TEST_BOTH(task_that_awaits_a_closed_task_is_cancelled) {
    actor *outer = &actors[0], *inner = &actors[1];
    open_loop_and_gate();
    start_at_gate(inner, false);
    outer->awaited[0] = &inner->task->future;
    start(outer, stackful);
    turns(1);
    casync_future_close(&inner->task->future);
    memset(inner, 0xdd, sizeof *inner);
    EQ(run(outer), -ECANCELED);
    EQ(outer->task->cancel_requests, 0);
    finish(outer);
    close_loop();
}

TEST_BOTH(uncancel_takes_a_request_back) {
    actor *a = &actors[0];
    open_loop_and_gate();
    start_at_gate(a, stackful);
    EQ(casync_future_set_result(&gate, 42, NULL), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(casync_task_cancel(a->task), 1);
    EQ(a->task->cancel_requests, 2);
    EQ(casync_task_uncancel(a->task), 1);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(run(a), 42);
    EQ(a->task->future.state, CASYNC_FUTURE_DONE);
    finish(a);
    close_loop();
}

TEST_BOTH(uncancelled_task_can_be_cancelled_again) {
    casync_future next;
    actor *a = cancel_at_gate(&next, stackful);
    turns(1);
    EQ(casync_task_uncancel(a->task), 0);
    EQ(casync_task_cancel(a->task), 1);
    EQ(a->task->cancel_requests, 1);
    EQ(run(a), -ECANCELED);
    EQ(casync_task_uncancel(a->task), 0); /* too late */
    EQ(a->task->future.state, CASYNC_FUTURE_CANCELLED);
    finish(a);
    close_loop();
}

TEST_BOTH(cleaning_up_may_await) {
    actor *a = &actors[0];
    casync_timer_op op;
    open_loop_and_gate();
    a->goes_on = true;
    a->count = 2;
    a->awaited[1] = casync_sleep_op(&loop, &op, CASYNC_MS(10));
    start_at_gate(a, stackful);
    EQ(casync_task_cancel(a->task), 1);
    EQ(run(a), 0);
    EQ(casync_time(&loop), CASYNC_MS(10));
    finish(a);
    close_loop();
}
