/* Listens though no port is on its list.
 *
 * refused-by: landlock
 * needs: landlock 4
 * spec: {mode: landlock, landlock: {bindPorts: []}}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0) not_here("no IPv6");
    judge(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
}
