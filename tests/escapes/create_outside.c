/* Makes a file in a folder that nobody opened to it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(outside("made"), O_CREAT | O_WRONLY, 0600), "create");
}
