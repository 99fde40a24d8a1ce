/* Loads a program into the kernel.
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, hosts may not let ordinary users do it
 */

#include "escape.h"

int main(void) {
    char attributes[128] = {0};
    /* Command 0 makes a map; EINVAL comes from a kernel that looked at what was asked. */
    if (syscall(SYS_bpf, 0, attributes, sizeof attributes) >= 0 || errno == EINVAL) escaped("bpf");
    refused("bpf");
}
