/* Makes a mount namespace.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

#include <sched.h>

int main(void) {
    judge(unshare(CLONE_NEWNS), "unshare");
}
