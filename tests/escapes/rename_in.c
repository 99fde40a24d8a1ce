/* Takes a file from outside by renaming it.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(rename(outside("secret"), "taken"), "rename");
}
