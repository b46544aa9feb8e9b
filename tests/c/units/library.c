/* The one unit that holds the implementation. */
#define CASYNC_IMPLEMENTATION
#include "casync.h"
