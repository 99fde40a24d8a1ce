/* Connects to an abstract socket of a process outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeAbstractSockets: true}}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path + 1, given("ABSTRACT"));
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(given("ABSTRACT"));
    judge(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, len), "connect");
}
