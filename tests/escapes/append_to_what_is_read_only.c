/* Appends to a file that was opened for reading.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: rx}]}}
 */

#include "escape.h"

int main(void) {
    judge(open(outside("writable"), O_WRONLY | O_APPEND), "open for appending");
}
