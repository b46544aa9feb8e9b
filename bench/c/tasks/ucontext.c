/* ucontext.c - coroutines by swapcontext(3), which makes a system call for the signal mask each
   time. */
#include <stddef.h>
#include <ucontext.h>

typedef ucontext_t context;

static inline void context_make(context *c, void *stack, size_t size, void (*function)(void)) {
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = size;
    c->uc_link = NULL;
    makecontext(c, function, 0);
}

static inline void context_switch(context *from, context *to) { swapcontext(from, to); }

#include "coroutines.h"
