/* Replaces a file outside by renaming an own one.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    if (open("own", O_CREAT | O_WRONLY, 0600) < 0) broken("a file in the working directory");
    judge(rename("own", outside("writable")), "rename");
}
