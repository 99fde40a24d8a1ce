/* Talks to the machine's ports.
 *
 * refused-by: capabilities, seccomp
 * needs: any
 * spec: {}
 * as: root
 * control: none, machines may have none
 */

#include "escape.h"

int main(void) {
#ifdef SYS_iopl
    judge(syscall(SYS_iopl, 3), "iopl");
#else
    not_here("a processor without ports");
#endif
}
