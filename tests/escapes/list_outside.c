/* Lists a folder that nobody opened to it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open(given("OUTSIDE"), O_RDONLY | O_DIRECTORY), "open a folder");
}
