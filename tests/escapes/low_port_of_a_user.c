/* Listens on a port below 1024 as an ordinary user.
 *
 * refused-by: capabilities
 * needs: any
 * spec: {user: nobody}
 * as: root
 * control: root
 */

#include "escape.h"

int main(void) {
    int fd = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY);
    char first[16] = "";
    if (fd >= 0 && read(fd, first, sizeof first - 1) > 0 && atoi(first) < 1024) not_here("this host lets everybody listen");
    struct sockaddr_in address = loopback(1023);
    judge(bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address), "bind");
}
