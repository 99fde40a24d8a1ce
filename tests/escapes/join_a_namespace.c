/* Joins the namespace of the first process.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, root may be held here already
 */

#include "escape.h"

#include <sched.h>

int main(void) {
    int fd = open("/proc/1/ns/uts", O_RDONLY);
    if (fd < 0) refused("open the namespace");
    judge(setns(fd, CLONE_NEWUTS), "setns");
}
