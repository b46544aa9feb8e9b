/* await is yield from.

   Run it from the repository's root:   tcc -run examples/study/05_await.c

   A step function (page 4) that calls another step function has to pass its stops on: as long as
   the inner one says PENDING, the outer one says PENDING too, and when it is stepped again it steps
   the inner one. That loop is what Python's `yield from` is, and so `await`.

   So the driver at the top only knows the outermost. Each step goes down the whole chain: with n
   levels it costs n calls. (casync.h does it otherwise: what can be awaited is a future, and each
   task waits for one, so a step begins where it stopped. Page 8.) */
#include <stdio.h>
#include <string.h>

enum { PENDING = -1, DONE = 0 };

#define BEGIN(line)                                                                                \
    switch (line) {                                                                                \
    case 0:
/* The step of the inner one, again and again, with a stop of our own in between. */
#define AWAIT(line, inner_step)                                                                    \
    do {                                                                                           \
        (line) = __LINE__;                                                                         \
        if (0) {                                                                                   \
        case __LINE__:;                                                                            \
        }                                                                                          \
        if ((inner_step) == PENDING) return PENDING;                                               \
    } while (0)
#define END(line)                                                                                  \
    }                                                                                              \
    return DONE

/* What goes between the bottom and the driver at the top: a question up, an answer down. */
static const char *question, *answer;

typedef struct ask {
    const char *what;
    const char *result;
    int line;
} ask;

/* The bottom: this one really stops. */
static int ask_step(ask *a) {
    switch (a->line) {
    case 0:
        question = a->what;
        a->line = 1;
        return PENDING;
    case 1:
        a->result = answer;
    }
    return DONE;
}

/* In the middle: it awaits two of those. Their structs are in its own, as frames are on a stack. */
typedef struct talk {
    ask name, colour;
    char result[64];
    int line;
} talk;

static int talk_step(talk *t) {
    BEGIN(t->line);
    t->name.what = "name";
    AWAIT(t->line, ask_step(&t->name));
    t->colour.what = "colour";
    AWAIT(t->line, ask_step(&t->colour));
    snprintf(t->result, sizeof t->result, "%s likes %s", t->name.result, t->colour.result);
    END(t->line);
}

/* Around it: one level more, and nothing changes for the driver. */
typedef struct meeting {
    talk first, second;
    int line;
} meeting;

static int meeting_step(meeting *m) {
    BEGIN(m->line);
    AWAIT(m->line, talk_step(&m->first));
    printf("%s\n", m->first.result);
    AWAIT(m->line, talk_step(&m->second));
    printf("%s\n", m->second.result);
    END(m->line);
}

int main(void) {
    static const char *const answers[] = {"ann", "red", "ben", "blue"};
    meeting m;
    int next = 0;
    memset(&m, 0, sizeof m);
    while (meeting_step(&m) == PENDING) { /* the driver */
        answer = answers[next++];
        printf("  %s? %s\n", question, answer);
    }
    return 0;
}

/* Prints:
       name? ann
       colour? red
     ann likes red
       name? ben
       colour? blue
     ben likes blue
*/
