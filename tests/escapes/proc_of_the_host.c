/* Sees a process outside in /proc.
 *
 * refused-by: PID namespace
 * needs: any
 * spec: {namespaces: [pid]}
 */

#include "escape.h"

int main(void) {
    judge(open(proc_of("VICTIM", "stat"), O_RDONLY), "open stat");
}
