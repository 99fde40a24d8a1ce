/* Finds a descriptor that was left open.
 *
 * refused-by: descriptors
 * needs: any
 * spec: {}
 * control: none, whoever starts the case may leave some open
 */

#include "escape.h"

int main(void) {
    for (int fd = 3; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) != -1) escaped("an open descriptor");
    errno = EBADF;
    refused("an open descriptor");
}
