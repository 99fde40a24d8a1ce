/* Makes a socket's file outside.
 *
 * refused-by: landlock
 * needs: landlock 1
 * spec: {mode: landlock, landlock: {paths: [{path: $OUTSIDE, modes: rw}]}}
 */

#include "escape.h"

int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(outside("socket")) >= sizeof address.sun_path) not_here("the folder's path is too long for a socket");
    strcpy(address.sun_path, outside("socket"));
    judge(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address), "bind");
}
