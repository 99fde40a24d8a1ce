/* Cuts a file off that it may only read.
 *
 * refused-by: landlock
 * needs: landlock 3
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: r}]}}
 */

#include "escape.h"

int main(void) {
    judge(truncate(outside("writable"), 0), "truncate");
}
