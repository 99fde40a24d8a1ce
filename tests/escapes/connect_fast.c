/* Connects to a port that is not on its list, by a first message.
 *
 * refused-by: landlock
 * needs: landlock 4
 * spec: {mode: landlock, landlock: {connectPorts: []}}
 * control: none, the kernel may not do TCP Fast Open
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in address = loopback(atoi(given("OPEN_PORT")));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    judge(sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address), "send");
}
