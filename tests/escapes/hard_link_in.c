/* Takes a file from outside by a hard link.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(link(outside("secret"), "taken"), "link");
}
