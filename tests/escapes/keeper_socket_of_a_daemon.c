/* Says hello to the keeper out of a process that detached itself.
 *
 * refused-by: peer check
 * needs: any
 * spec: {}
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

int main(void) {
    int result[2];
    if (pipe(result) < 0) broken("pipe");
    if (fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        usleep(100000);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, given("KEEPER_SOCKET"), sizeof address.sun_path - 1);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        char verdict = 'r';
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
            unsigned char hello[] = {1, 0, 0x82, 0x00, 0xa2, 0x00, 0x01, 0x01, 0x01}, answer[4096];
            send(fd, hello, sizeof hello, MSG_NOSIGNAL);
            if (recv(fd, answer, sizeof answer, 0) > 0) verdict = 'e';
        }
        write(result[1], &verdict, 1);
        _exit(0);
    }
    char verdict = 0;
    if (read(result[0], &verdict, 1) != 1) broken("the daemon's word");
    errno = ECONNRESET;
    judge(verdict == 'e' ? 0 : -1, "an answer of the keeper");
}
