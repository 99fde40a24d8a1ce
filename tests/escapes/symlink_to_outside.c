/* Reads a file outside through a symbolic link of its own.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    unlink("link");
    if (symlink(outside("secret"), "link") < 0) broken("a link in the working directory");
    judge(open("link", O_RDONLY), "open through a link");
}
