/* Connects to a port that is not on its list.
 *
 * refused-by: landlock
 * needs: landlock 4
 * spec: {mode: landlock, landlock: {connectPorts: [1]}}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in address = loopback(atoi(given("OPEN_PORT")));
    judge(connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address), "connect");
}
