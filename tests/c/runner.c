/* A program whose tests pass, fail, are skipped, crash and hang: tests/run checks what test.h makes
   of it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "test.h"

TEST(passes) { EQ(2 + 2, 4); }
TEST(fails) { EQ(2 + 2, 5); }
TEST(is_skipped) { SKIP("for a reason"); }
TEST(crashes) { raise(SIGSEGV); }
TEST(hangs) { pause(); }

int main(int argc, char **argv) {
    test_begin(argc, argv, __FILE__);
    RUN(passes);
    RUN(fails);
    RUN(is_skipped);
    RUN(crashes);
    test__run_state.timeout /= 20; /* those before may stall, and shall pass: only this one is
                                      hurried */
    RUN(hangs);
    return test_end();
}
