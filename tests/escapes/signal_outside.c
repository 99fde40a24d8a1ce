/* Sends a signal to a process outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 */

#include "escape.h"

int main(void) {
    judge(kill(victim(), SIGCONT), "kill");
}
