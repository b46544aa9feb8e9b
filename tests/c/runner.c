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
TEST_WITHIN(1, hangs) { pause(); }
