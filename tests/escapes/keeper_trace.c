/* Traces the keeper.
 *
 * refused-by: undumpable
 * needs: any
 * spec: {}
 * control: none, it is no instance of a keeper
 */

#include "escape.h"

#include <sys/ptrace.h>

int main(void) {
    judge(ptrace(PTRACE_SEIZE, atoi(given("KEEPER")), 0, 0), "seize the keeper");
}
