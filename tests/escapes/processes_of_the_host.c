/* Sees a process outside.
 *
 * refused-by: PID namespace
 * needs: any
 * spec: {namespaces: [pid]}
 */

#include "escape.h"

int main(void) {
    judge(kill(victim(), 0), "kill");
}
