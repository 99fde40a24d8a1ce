/* Reads the file beside the one that was opened to it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE/writable, modes: rw}]}}
 */

#include "escape.h"

int main(void) {
    if (open(outside("writable"), O_RDONLY) < 0) broken("the file itself is allowed");
    judge(open(outside("secret"), O_RDONLY), "open its neighbour");
}
