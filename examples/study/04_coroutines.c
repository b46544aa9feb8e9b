/* Coroutines: functions that stop in the middle and go on later.

   Run it from the repository's root:   tcc -run examples/study/04_coroutines.c

   C has none. A C function keeps its variables and its place on the stack, and both are gone when
   it returns. There are two ways out, and casync.h has both:

   - stackless: keep the variables in a struct, and the place in it as a number. The function
     returns at each stop; when it is called again a switch jumps to the place. Costs nothing but
     the struct, needs no help from the machine, but a stop can only be in that function itself, and
     locals do not survive one. Python's generators and coroutines are this, too: the struct is
     their frame.
   - stackful: give each coroutine a stack of its own, and change the stack pointer to stop it. It
     may stop anywhere, in any function that it calls, and keeps its locals. Costs a stack each, and
     some assembly. (casync_generator is one that hands over a value at each stop.)

   Here is the first, by hand. `case` labels may stand inside of loops: the switch jumps right into
   them (a trick that Tom Duff found in 1983). */
#include <stdbool.h>
#include <stdio.h>

typedef struct countdown {
    const char *name; /* its arguments and variables */
    int n;
    int line; /* its place: 0 at first */
} countdown;

/* Goes on up to the next stop. False once it has ended. */
static bool countdown_step(countdown *c) {
    switch (c->line) {
    case 0:
        while (c->n > 0) {
            printf("%s %d\n", c->name, c->n);
            c->line = 1;
            return true; /* stops here: the others run */
        case 1:          /* and goes on here */
            c->n--;
        }
    }
    return false;
}

/* The same with the switch behind macros, and the line's number for the place. */
#define BEGIN(line)                                                                                \
    switch (line) {                                                                                \
    case 0:
#define YIELD(line, value)                                                                         \
    do {                                                                                           \
        (line) = __LINE__;                                                                         \
        return (value);                                                                            \
    case __LINE__:;                                                                                \
    } while (0)
#define END(value)                                                                                 \
    }                                                                                              \
    return (value)

typedef struct average {
    double sent; /* what Python's send() hands over */
    double total;
    int count, line;
} average;

static double average_step(average *a) {
    BEGIN(a->line);
    for (;;) {
        a->total += a->sent;
        a->count++;
        YIELD(a->line, a->total / a->count);
    }
    END(0);
}

int main(void) {
    average avg = {0};
    countdown tasks[] = {{"a", 3, 0}, {"b", 2, 0}};
    int i, running = 2;
    avg.sent = 10;
    printf("sent 10: %.1f\n", average_step(&avg));
    avg.sent = 20;
    printf("sent 20: %.1f\n", average_step(&avg));

    /* A scheduler: each in its turn, until all have ended. */
    while (running > 0)
        for (i = running = 0; i < 2; i++) running += countdown_step(&tasks[i]);
    printf("a countdown is %s than 40 bytes\n", sizeof(countdown) < 40 ? "less" : "more");
    return 0;
}

/* Prints:
     sent 10: 10.0
     sent 20: 15.0
     a 3
     b 2
     a 2
     b 1
     a 1
     a countdown is less than 40 bytes
*/
