/* Pastes into a console (TIOCLINUX).
 *
 * refused-by: seccomp
 * needs: any
 * spec: {}
 * control: none, machines may have no console
 */

#include "escape.h"

#include <sys/ioctl.h>

int main(void) {
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (fd < 0) not_here("no pseudo terminals");
    char command = 2;
    /* ENOTTY comes from the terminal: it was let through to it. */
    if (ioctl(fd, TIOCLINUX, &command) == 0 || errno == ENOTTY || errno == EINVAL) escaped("TIOCLINUX");
    refused("TIOCLINUX");
}
