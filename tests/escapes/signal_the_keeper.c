/* Sends a signal to the keeper.
 *
 * refused-by: landlock
 * needs: landlock 6
 * spec: {mode: landlock, landlock: {scopeSignals: true}}
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

int main(void) {
    judge(kill(atoi(given("KEEPER")), 0), "kill");
}
