/* Removes a folder outside.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(rmdir(outside("empty")), "rmdir");
}
