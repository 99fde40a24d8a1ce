/* Attaches shared memory of a process outside.
 *
 * refused-by: IPC namespace
 * needs: any
 * spec: {namespaces: [ipc]}
 */

#include "escape.h"

#include <sys/shm.h>

int main(void) {
    judge(shmget(atoi(given("SHARED_KEY")), 0, 0), "shmget");
}
