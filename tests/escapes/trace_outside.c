/* Traces a process outside.
 *
 * refused-by: landlock, seccomp
 * needs: any
 * spec: {mode: landlock}
 */

#include "escape.h"

#include <sys/ptrace.h>

int main(void) {
    judge(ptrace(PTRACE_SEIZE, victim(), 0, 0), "seize");
}
