/* Forks beyond the limit of its specification.
 *
 * refused-by: pids
 * needs: pids
 * spec: {pidsMax: 20}
 * as: root
 */

#include "escape.h"

static pid_t children[50];

/* Not by their group: one that has only just been forked may still ignore what its parent ignored. */
static void end_children(int count) {
    int before = errno;
    for (int i = 0; i < count; i++) kill(children[i], SIGKILL);
    errno = before;
}

int main(void) {
    for (int i = 0; i < 50; i++) {
        children[i] = fork();
        if (children[i] < 0) {
            end_children(i);
            refused("fork");
        }
        if (children[i] == 0) for (;;) pause();
    }
    end_children(50);
    escaped("50 processes");
}
