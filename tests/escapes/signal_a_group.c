/* Sends a signal to a group of processes outside.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 */

#include "escape.h"

int main(void) {
    judge(kill(-getpgid(victim()), 0), "kill a group");
}
