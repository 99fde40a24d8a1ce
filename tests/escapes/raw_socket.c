/* Opens a raw socket.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {}
 * as: root
 */

#include "escape.h"

int main(void) {
    judge(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "socket");
}
