/* Reads the memory of a process outside.
 *
 * refused-by: landlock, seccomp
 * needs: any
 * spec: {mode: landlock}
 */

#include "escape.h"

#include <sys/uio.h>

int main(void) {
    /* Where the victim's program begins is not known to it: an address that is wrong gives EFAULT, which only those get who may look. */
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)4096, 1};
    if (process_vm_readv(victim(), &here, 1, &there, 1, 0) == 1 || errno == EFAULT) escaped("process_vm_readv");
    refused("process_vm_readv");
}
