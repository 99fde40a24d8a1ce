/* Makes a named pipe outside.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: rw}]}}
 */

#include "escape.h"

int main(void) {
    judge(mkfifo(outside("pipe"), 0600), "mkfifo");
}
