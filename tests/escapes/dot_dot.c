/* Climbs out of its working directory.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock}
 */

#include "escape.h"

int main(void) {
    judge(open("../../../../../../../../../../etc/passwd", O_RDONLY), "open with dots");
}
