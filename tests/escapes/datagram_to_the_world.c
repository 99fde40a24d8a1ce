/* Sends a datagram to an address of documentation (RFC 5737), which nobody has.
 *
 * refused-by: network namespace
 * needs: any
 * spec: {nonet: true}
 * control: none, the host may have no way there either
 */

#include "escape.h"

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9)};
    inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
    judge(sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (struct sockaddr *)&address, sizeof address), "sendto");
}
