/* Says hello to the keeper as if it were the node.
 *
 * refused-by: peer check
 * needs: any
 * spec: {}
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, given("KEEPER_SOCKET"), sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) refused("connect");
    /* Packet version, form, then [0, {0: 1, 1: 1}]: hello in version 1. */
    unsigned char hello[] = {1, 0, 0x82, 0x00, 0xa2, 0x00, 0x01, 0x01, 0x01}, answer[4096];
    send(fd, hello, sizeof hello, MSG_NOSIGNAL);
    ssize_t len = recv(fd, answer, sizeof answer, 0);
    errno = ECONNRESET;
    judge(len > 0 ? 0 : -1, "an answer of the keeper");
}
