/* Types into a terminal as if it were the user (TIOCSTI).
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, kernels since 6.2 may have switched it off
 */

#include "escape.h"

#include <sys/ioctl.h>

int main(void) {
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (fd < 0) not_here("no pseudo terminals");
    grantpt(fd);
    unlockpt(fd);
    int terminal = open(ptsname(fd), O_RDWR);
    if (terminal < 0) not_here("the terminal cannot be opened");
    setsid();
    if (ioctl(terminal, TIOCSTI, "x") == 0) escaped("TIOCSTI");
    /* EIO comes from a kernel that has it switched off: it was let through to it. */
    if (errno == EIO) escaped("TIOCSTI, up to the kernel's own switch");
    refused("TIOCSTI");
}
