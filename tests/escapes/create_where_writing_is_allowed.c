/* Makes a file where files may be written, and none made.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: rw}]}}
 */

#include "escape.h"

int main(void) {
    judge(open(outside("made"), O_CREAT | O_WRONLY, 0600), "create");
}
