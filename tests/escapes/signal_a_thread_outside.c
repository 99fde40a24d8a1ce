/* Sends a signal to a thread outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 */

#include "escape.h"

int main(void) {
    judge(syscall(SYS_tgkill, victim(), victim(), SIGCONT), "tgkill");
}
