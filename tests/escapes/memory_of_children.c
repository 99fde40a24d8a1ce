/* Uses more memory than its limit, spread over its children.
 *
 * refused-by: memory
 * needs: memory
 * spec: {memoryMaxMB: 32}
 * as: root
 */

#include "escape.h"

static pid_t children[16];

int main(void) {
    int lived = 0, alive = 0;
    for (int i = 0; i < 16; i++) {
        int ready[2];
        char byte;
        if (pipe(ready) < 0) broken("pipe");
        children[i] = fork();
        if (children[i] == 0) {
            /* Volatile, so that the compiler does not leave out what nobody reads. */
            volatile char *piece = malloc(8 << 20);
            for (int at = 0; at < 8 << 20; at += 4096) piece[at] = i + 1;
            write(ready[1], "x", 1);
            for (;;) pause();
        }
        close(ready[1]);
        if (read(ready[0], &byte, 1) == 1) lived++;
        close(ready[0]);
    }
    for (int i = 0; i < 16; i++) {
        alive += waitpid(children[i], NULL, WNOHANG) == 0;
        kill(children[i], SIGKILL);
    }
    if (lived == 16 && alive == 16) escaped("128 MiB");
    errno = ENOMEM;
    refused("128 MiB");
}
