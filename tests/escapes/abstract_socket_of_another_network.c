/* Connects to an abstract socket of the host's network.
 *
 * refused-by: network namespace
 * needs: any
 * spec: {nonet: true}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path + 1, given("ABSTRACT"));
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(given("ABSTRACT"));
    judge(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, len), "connect");
}
