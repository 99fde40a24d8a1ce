/* Connects to a port of the host's loopback.
 *
 * refused-by: network namespace
 * needs: any
 * spec: {nonet: true}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in address = loopback(atoi(given("OPEN_PORT")));
    judge(connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address), "connect");
}
