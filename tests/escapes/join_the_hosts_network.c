/* Goes back to the host's network by its file in /proc.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {nonet: true}
 * as: root
 * control: none, it is there already
 */

#include "escape.h"

#include <sched.h>

int main(void) {
    int fd = open(proc_of("VICTIM", "ns/net"), O_RDONLY);
    if (fd < 0) refused("open the namespace");
    judge(setns(fd, CLONE_NEWNET), "setns");
}
