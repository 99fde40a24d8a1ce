/* Makes a symbolic link outside.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: rw}]}}
 */

#include "escape.h"

int main(void) {
    judge(symlink("/etc/passwd", outside("link")), "symlink");
}
