/* Forks without end, under the limit that everybody has.
 *
 * refused-by: pids
 * needs: pids
 * spec: {}
 * as: root
 * control: none, it would harm the host
 */

#include "escape.h"

int main(void) {
    /* The children wait for their parent, and end with its group. */
    for (int i = 0; i < 6000; i++) {
        pid_t child = fork();
        if (child < 0) { kill(0, SIGTERM); refused("fork"); }
        if (child == 0) { for (;;) pause(); }
        if (i == 0) signal(SIGTERM, SIG_IGN);
    }
    escaped("6000 processes");
}
