/* Writes to a file that nobody opened to it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(outside("writable"), O_WRONLY), "open for writing");
}
