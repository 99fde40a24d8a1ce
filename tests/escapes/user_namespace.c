/* Makes a user namespace, in which it would be root.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may not let ordinary users do it
 */

#include "escape.h"

#include <sched.h>

int main(void) {
    judge(unshare(CLONE_NEWUSER), "unshare");
}
