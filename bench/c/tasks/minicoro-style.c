/* minicoro-style.c - coroutines by a function in assembly that exchanges the registers which a call
   preserves and returns on the other stack, as minicoro and most others do it. */
#include <stddef.h>
#include <stdint.h>

typedef struct context {
    void *stack_pointer;
} context;

void switch_stacks(void **from, void *to);

#if defined(__x86_64__)
__asm__(".text\n.globl switch_stacks\nswitch_stacks:\n\t"
        "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
        "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
        "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret\n");

/* What switch_stacks pops: six registers and the address to return to; the stack is then as after a
   call. */
static inline void context_make(context *c, void *stack, size_t size, void (*function)(void)) {
    void **frame = (void **)(((uintptr_t)stack + size) / 16 * 16) - 8;
    for (int i = 0; i < 8; i++) frame[i] = NULL;
    frame[6] = (void *)(uintptr_t)function;
    c->stack_pointer = frame;
}
#elif defined(__aarch64__)
__asm__(".text\n.globl switch_stacks\nswitch_stacks:\n\t"
        "sub sp, sp, #160\n\tstp x19, x20, [sp]\n\tstp x21, x22, [sp, #16]\n\tstp x23, x24, [sp, "
        "#32]\n\t"
        "stp x25, x26, [sp, #48]\n\tstp x27, x28, [sp, #64]\n\tstp x29, x30, [sp, #80]\n\t"
        "stp d8, d9, [sp, #96]\n\tstp d10, d11, [sp, #112]\n\tstp d12, d13, [sp, #128]\n\t"
        "stp d14, d15, [sp, #144]\n\tmov x9, sp\n\tstr x9, [x0]\n\tmov sp, x1\n\t"
        "ldp x19, x20, [sp]\n\tldp x21, x22, [sp, #16]\n\tldp x23, x24, [sp, #32]\n\t"
        "ldp x25, x26, [sp, #48]\n\tldp x27, x28, [sp, #64]\n\tldp x29, x30, [sp, #80]\n\t"
        "ldp d8, d9, [sp, #96]\n\tldp d10, d11, [sp, #112]\n\tldp d12, d13, [sp, #128]\n\t"
        "ldp d14, d15, [sp, #144]\n\tadd sp, sp, #160\n\tret\n");

static inline void context_make(context *c, void *stack, size_t size, void (*function)(void)) {
    void **frame = (void **)(((uintptr_t)stack + size) / 16 * 16) - 20;
    for (int i = 0; i < 20; i++) frame[i] = NULL;
    frame[11] = (void *)(uintptr_t)function;
    c->stack_pointer = frame;
}
#else
#error "no switch for this processor"
#endif

static inline void context_switch(context *from, context *to) {
    switch_stacks(&from->stack_pointer, to->stack_pointer);
}

#include "coroutines.h"
