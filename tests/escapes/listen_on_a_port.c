/* Listens on a port that is not on its list.
 *
 * refused-by: landlock
 * needs: landlock 4
 * spec: {mode: landlock, landlock: {bindPorts: [1]}}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in address = loopback(0);
    judge(bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address), "bind");
}
