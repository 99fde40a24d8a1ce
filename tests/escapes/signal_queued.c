/* Queues a signal with a value for a process outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 */

#include "escape.h"

int main(void) {
    union sigval value = {.sival_int = 1};
    judge(sigqueue(victim(), SIGCONT, value), "sigqueue");
}
