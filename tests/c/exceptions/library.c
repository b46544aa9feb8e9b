/* The one unit that holds the implementation: as C, whatever the tasks are written in. */
#define CASYNC_IMPLEMENTATION
#include "casync.h"
