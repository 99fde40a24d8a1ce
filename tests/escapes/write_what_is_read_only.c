/* Writes to a file that was opened for reading.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: r}]}}
 */

#include "escape.h"

int main(void) {
    if (open(outside("writable"), O_RDONLY) < 0) broken("reading is allowed");
    judge(open(outside("writable"), O_WRONLY), "open for writing");
}
