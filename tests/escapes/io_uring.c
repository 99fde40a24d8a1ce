/* Makes a ring, whose requests no filter sees.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may have switched it off
 */

#include "escape.h"

int main(void) {
    char parameters[256] = {0};
    judge(syscall(SYS_io_uring_setup, 1, parameters), "io_uring_setup");
}
